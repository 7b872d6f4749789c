//! `sparsek plan`: which keys each query sees, in numbers and as a picture.

use super::{Parameters, failure};
use crate::backend::{Backend, Device, Done};
use crate::failure::{Failure, Outcome};
use crate::picture::Picture;
use crate::table::Table;
use crate::target::Target;
use crate::tensors::file::{HostTensor, TensorFile};
use crate::tensors::inputs::{self, Loaded};
use crate::terminal::{Channel, thousands};
use clap::Args;
use sparsek::dsl::ir::{Instance, Op};
use sparsek::{Kernel, Storage};
use std::path::PathBuf;

/// Arguments of `sparsek plan`.
#[derive(Args, Debug)]
#[command(after_help = "\
For each key-value head: keys ever selected, keys whose score ever rises above the threshold
(support), the threshold's range, and how many keys a query sees. A key is seen for one contiguous
range of queries; the picture draws it as a strip.

Example:
  sparsek plan sparsek-value --input in.safetensors --svg plan.svg --head 1")]
pub(crate) struct PlanArgs {
    /// FILE.rs, FILE.rs::Kernel, or the name of a built-in kernel
    #[arg(value_name = "KERNEL")]
    kernel: String,
    /// Tensors to plan for; the same as for `run`
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Draw a picture there
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Key-value head of the picture
    #[arg(long, default_value_t = 0, value_name = "H", requires = "svg")]
    head: usize,
    /// Sequence of the picture: an entry of the batch, or a packed sequence
    #[arg(long, default_value_t = 0, value_name = "B", requires = "svg")]
    batch: usize,
    /// First position of the picture
    #[arg(long, default_value_t = 0, value_name = "I", requires = "svg")]
    from: usize,
    /// One past the last position of the picture [default: the sequence's end]
    #[arg(long, value_name = "I", requires = "svg")]
    to: Option<usize>,
    /// Heading of the picture [default: the kernel, its input and its parameters]
    #[arg(long, value_name = "TEXT", requires = "svg")]
    title: Option<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE", value_parser = Device::parse)]
    device: Device,
    #[command(flatten)]
    parameters: Parameters,
}

/// The selection of one head of one sequence.
struct HeadPlan<'a> {
    scores: Option<&'a [f32]>,
    tau: &'a [f32],
    expiry: &'a [i32],
    window: usize,
    sinks: usize,
}

/// A plan in numbers.
struct Summary {
    selected: usize,
    support: Option<usize>,
    tau: Option<(f32, f32)>,
    mean_seen: f64,
    most_seen: usize,
}

pub(crate) fn run(args: &PlanArgs) -> Result<Outcome, Failure> {
    let backend = Backend::open(args.device)?;
    let target = Target::find(&args.kernel)?;
    let file = TensorFile::open(&args.input)?;
    let apart = |path| target.destination(path)?.apart_from(&args.input, "input");
    let destination = args.svg.as_deref().map(apart).transpose()?;
    let spec = inputs::spec(&target.program, &file, &args.parameters.flags()?)?;
    let kernel = Kernel::from_program(&target.program, &spec).map_err(|e| failure(e, None))?;
    let loaded = Loaded::read(&target.program, spec.elem, &file, false)?;
    let done = backend.runner(&kernel, false).run(&loaded, true);
    let done = done.map_err(|e| e.failure(Some(&file)))?;
    let plans = Plans::new(kernel.instance(), &loaded, &done)?;

    let channel = match &destination {
        Some(d) if d.is_direct() => Channel::Stderr,
        _ => Channel::Stdout,
    };
    channel.write(&report(&target, &backend, kernel.instance(), &plans))?;
    if let Some(destination) = destination {
        let svg = draw(args, &target, kernel.instance(), &plans)?;
        destination.write(|out| out.write_all(svg.as_bytes()))?;
        channel.write(&format!("  drew {}\n", destination.path().display()))?;
    }
    Ok(Outcome::Done)
}

/// The plans of every head and sequence of a call.
struct Plans<'a> {
    /// Sequence boundaries within a row of the tensors, and the row.
    sequences: Vec<(usize, std::ops::Range<usize>)>,
    heads: usize,
    n: usize,
    scores: Option<&'a [f32]>,
    tau: &'a [f32],
    expiry: &'a [i32],
    window: usize,
    sinks: usize,
}

impl<'a> Plans<'a> {
    fn new(
        instance: &Instance,
        loaded: &'a Loaded,
        forward: &'a Done,
    ) -> Result<Plans<'a>, Failure> {
        let (Some(tau), Some(expiry)) = (forward.tau.as_f32(), forward.expiry.as_i32()) else {
            return Err(Failure::new("the backend gave no plan"));
        };
        let &[batch, heads, n] = forward.tau.shape() else {
            return Err(Failure::new("the backend gave a plan of an unknown shape"));
        };
        // A threshold is on the scale of u only where u is what `sparsek` takes.
        let gate = instance.program.gate().map(|g| &instance.program.node(g.score).op);
        let scores = match (gate, loaded.get("u")) {
            (Some(Op::Input(_)), Some(HostTensor { data: Storage::F32(u), .. })) => {
                Some(u.as_slice())
            }
            _ => None,
        };
        let sequences = match &loaded.cu_seqlens {
            None => (0..batch).map(|b| (b, 0..n)).collect(),
            Some(bounds) => bounds.windows(2).map(|w| (0, w[0] as usize..w[1] as usize)).collect(),
        };
        let (window, sinks) = (instance.w, instance.sinks);
        Ok(Plans { sequences, heads, n, scores, tau, expiry, window, sinks })
    }

    fn get(&self, sequence: usize, head: usize) -> HeadPlan<'a> {
        let (row, within) = &self.sequences[sequence];
        let start = (row * self.heads + head) * self.n;
        let at = start + within.start..start + within.end;
        HeadPlan {
            scores: self.scores.map(|u| &u[at.clone()]),
            tau: &self.tau[at.clone()],
            expiry: &self.expiry[at],
            window: self.window,
            sinks: self.sinks,
        }
    }
}

impl HeadPlan<'_> {
    fn summary(&self) -> Summary {
        let n = self.tau.len();
        let mut change = vec![0i64; n + 1];
        let (mut selected, mut support) = (0, 0);
        for j in 0..n {
            let sink = j < self.sinks;
            let end = if sink { n } else { usize::try_from(self.expiry[j]).unwrap_or(0).min(n) };
            if j < end {
                change[j] += 1;
                change[end] -= 1;
            }
            let enters = j + self.window;
            selected += usize::from(!sink && enters < end);
            if let (Some(u), false, true) = (self.scores, sink, enters < n) {
                support += usize::from(u[j] > self.tau[enters]);
            }
        }
        let (mut now, mut total, mut most) = (0i64, 0i64, 0i64);
        for step in &change[..n] {
            now += step;
            total += now;
            most = most.max(now);
        }
        let finite = || self.tau.iter().copied().filter(|t| t.is_finite());
        let range = finite()
            .next()
            .map(|first| finite().fold((first, first), |(low, high), t| (low.min(t), high.max(t))));
        Summary {
            selected,
            support: self.scores.map(|_| support),
            tau: range,
            mean_seen: total as f64 / n.max(1) as f64,
            most_seen: usize::try_from(most).unwrap_or(0),
        }
    }
}

fn report(target: &Target, backend: &Backend, instance: &Instance, plans: &Plans<'_>) -> String {
    let mut out = format!(
        "{} on {}: k {}, window {}, {} sinks, {} positions\n",
        target.name,
        backend.describe(),
        instance.k,
        instance.w,
        instance.sinks,
        thousands(plans.n)
    );
    let mut table = Table::new(&[
        "sequence",
        "head",
        "keys",
        "ever selected",
        "support",
        "threshold from",
        "to",
        "mean seen",
        "most seen",
    ]);
    for (s, (_, within)) in plans.sequences.iter().enumerate() {
        for h in 0..plans.heads {
            let summary = plans.get(s, h).summary();
            let tau = |pick: fn((f32, f32)) -> f32| {
                summary.tau.map_or("-inf".to_owned(), |t| format!("{:.4}", pick(t)))
            };
            table.row([
                s.to_string(),
                h.to_string(),
                thousands(within.len()),
                thousands(summary.selected),
                summary.support.map_or("-".to_owned(), thousands),
                tau(|t| t.0),
                tau(|t| t.1),
                format!("{:.1}", summary.mean_seen),
                thousands(summary.most_seen),
            ]);
        }
    }
    out.push_str(&table.render(2));
    out
}

fn draw(
    args: &PlanArgs,
    target: &Target,
    instance: &Instance,
    plans: &Plans<'_>,
) -> Result<String, Failure> {
    if args.batch >= plans.sequences.len() || args.head >= plans.heads {
        return Err(Failure::new(format_args!(
            "there is no sequence {} with key-value head {}",
            args.batch, args.head
        ))
        .help(format_args!(
            "--batch is below {} and --head below {}",
            plans.sequences.len(),
            plans.heads
        )));
    }
    let plan = plans.get(args.batch, args.head);
    let n = plan.tau.len();
    let to = args.to.unwrap_or(n);
    if args.from >= to || to > n {
        return Err(Failure::new(format_args!(
            "positions {}..{to} are no part of 0..{n}",
            args.from
        ))
        .help(format_args!("--from and --to are positions of the sequence, at most {n}")));
    }
    let summary = plan.summary();
    let input = args.input.file_stem().map(|s| s.to_string_lossy()).unwrap_or_default();
    let title = args
        .title
        .clone()
        .unwrap_or_else(|| format!("{} on {input}, head {}", target.name, args.head));
    let mut facts = vec![
        format!("k = {}, window = {}, {} positions", instance.k, instance.w, thousands(n)),
        format!("{} keys are ever selected", thousands(summary.selected)),
    ];
    facts.extend(summary.support.map(|s| format!("{} scores are ever above τ", thousands(s))));
    facts.push(format!("a query sees {:.0} keys on average", summary.mean_seen));
    let nothing = vec![f32::NAN; n];
    let picture = Picture {
        title: &title,
        facts: &facts,
        range: args.from..to,
        window: plan.window,
        sinks: plan.sinks,
        scores: plan.scores.unwrap_or(&nothing),
        tau: plan.tau,
        expiry: plan.expiry,
    };
    picture.svg().map_err(|_| Failure::new("the picture could not be written as text"))
}
