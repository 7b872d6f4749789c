//! The process that uses the GPU, or that compiles, from its own side: `sparsek tune-worker`.

use super::protocol::{Reply, Request, Setup, Source};
use crate::against_cpu;
use crate::backend::{Backend, Device};
use crate::bench::data::{self, Recipe, Scores};
use crate::bench::device::copy_rate;
use crate::bench::sets::{Set, driver, failed, least_bytes, mark, sets_that_take_turns};
use crate::cases::Case;
use crate::failure::{Failure, Outcome};
use sparsek::cuda::cache::Cache;
use sparsek::{Kernel, Program, Tensor, cuda};
use sparsek_codegen::tune::{Axis, Spread};
use sparsek_codegen::{Schedule, Target};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::mpsc;

/// Turns of a schedule when figures are taken, calls of a turn, and calls whose launches are timed one by one.
const TURNS: usize = 3;
const CALLS: usize = 7;
const PROFILED: usize = 3;

/// Seed of the inputs of a check.
const SEED: u64 = 77;

/// Answers requests until there are none.
pub(crate) fn run() -> Result<Outcome, Failure> {
    // The tuner is told to stop by the same key, and says when this process is to end.
    ctrlc::set_handler(|| {}).map_err(Failure::new)?;
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        // Whoever asked is gone; a kernel that does not end must not keep this process.
        std::process::exit(0);
    });
    let mut server = None;
    while let Ok(line) = requests.recv() {
        let request: Request = serde_json::from_str(&line).map_err(|e| {
            Failure::new(format_args!("`{line}` is no request of the tuner: {e}"))
                .help("this command is the tuner's own; use `sparsek tune`")
        })?;
        let reply = answer(&mut server, request);
        let text = serde_json::to_string(&reply).map_err(Failure::new)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::new)?;
        if matches!(reply, Reply::Fault(_)) {
            std::process::exit(1);
        }
    }
    Ok(Outcome::Done)
}

fn answer(server: &mut Option<Server>, request: Request) -> Reply {
    let reply = match (request, server.as_mut()) {
        (Request::Compile(source), _) => return compile(&source),
        // The kernel of before goes first; where this fails there is none.
        (Request::Setup(setup), _) => {
            let gpu = server.take().map(|before| before.gpu);
            Server::new(&setup, gpu).map(|(opened, reply)| {
                *server = Some(opened);
                reply
            })
        }
        (_, None) => Err(Failure::new("the first request sets up")),
        (Request::Expect(n), Some(server)) => server.expect(n),
        (Request::Check { axis, schedule, n }, Some(server)) => server.check(axis, schedule, n),
        (Request::Time { axis, schedule, calls, cutoff }, Some(server)) => {
            server.time(axis, schedule, calls, cutoff).map(Reply::Times)
        }
        (Request::Figures(schedules), Some(server)) => server.figures(&schedules),
    };
    let failure = match reply {
        Ok(reply) => return reply,
        Err(failure) => failure.to_string(),
    };
    // After a fault the driver answers everything with it.
    match server.as_ref().map(|server| server.gpu.device.synchronize()) {
        Some(Err(_)) => Reply::Fault(failure),
        Some(Ok(())) | None => Reply::Failed(failure),
    }
}

fn compile(source: &Source) -> Reply {
    let Source { name, text, target } = source;
    let Some(target) = Target::named(target) else {
        return Reply::Failed(format!("there is no target {target}"));
    };
    match cuda::compiled_text(name, text, &target, Cache::from_environment().as_ref()) {
        Ok((_, None)) => Reply::Right,
        // The process that uses the GPU would compile it again, one candidate after the other.
        Ok((_, Some(warning))) => Reply::Failed(warning),
        Err(e) => Reply::Failed(e.to_string()),
    }
}

/// A small problem and its results on the CPU.
struct Expected {
    case: Case,
    results: Vec<(String, Tensor)>,
}

/// The GPU and what stays there from one kernel to the next.
struct Gpu {
    ordinal: usize,
    device: cuda::Device,
    /// What the inputs were made of.
    recipe: Option<Recipe>,
    /// Inputs that take turns.
    sets: Vec<Set>,
    /// Bytes a second of a copy, once it is known.
    copy: Option<f64>,
}

struct Server {
    setup: Setup,
    kernel: Kernel,
    gpu: Gpu,
    on_gpu: cuda::Kernel,
    expected: BTreeMap<usize, Expected>,
}

fn scores(text: &str) -> Result<Scores, Failure> {
    text.parse().map_err(Failure::new)
}

impl Gpu {
    fn open(ordinal: usize) -> Result<Gpu, Failure> {
        let Backend::Cuda(cuda) = Backend::open(Device::Cuda(ordinal))? else {
            return Err(Failure::new("schedules are tuned on a GPU"));
        };
        Ok(Gpu { ordinal, device: cuda.device, recipe: None, sets: Vec::new(), copy: None })
    }

    /// The inputs of a recipe, made and uploaded unless they are there.
    fn provide(&mut self, recipe: Recipe, count: usize) -> Result<(), Failure> {
        let stays = self.recipe.as_ref() == Some(&recipe) && self.sets.len() == count;
        if !stays {
            // There may not be room for both.
            (self.recipe, self.sets) = (None, Vec::new());
        }
        // Memory of the kernel before goes back to the driver; a fault of it is seen here and not in this kernel.
        self.device.synchronize().map_err(failed)?;
        if stays {
            return Ok(());
        }
        for seed in 0..count {
            let loaded = recipe.make(seed as u64 + 1);
            self.sets.push(Set::upload(&self.device, &loaded, true).map_err(failed)?);
        }
        self.recipe = Some(recipe);
        Ok(())
    }

    /// Bytes a second of a copy.
    fn copy(&mut self) -> Result<f64, Failure> {
        let rate = match self.copy {
            Some(rate) => rate,
            None => copy_rate(&self.device)?,
        };
        self.copy = Some(rate);
        Ok(rate)
    }
}

impl Server {
    /// For a kernel, with the GPU that another kernel had where there is one.
    fn new(setup: &Setup, gpu: Option<Gpu>) -> Result<(Server, Reply), Failure> {
        let program = Program::from_json(&setup.program).map_err(Failure::new)?;
        let kernel = Kernel::from_program(&program, &setup.spec()).map_err(failed)?;
        let mut gpu = match gpu.filter(|gpu| gpu.ordinal == setup.ordinal) {
            Some(gpu) => gpu,
            None => Gpu::open(setup.ordinal)?,
        };
        let on_gpu = kernel.cuda(&gpu.device);
        let sizes = sizes(setup, setup.n);
        let instance = kernel.instance();
        let recipe = Recipe::new(instance, &sizes, scores(&setup.scores)?, &setup.with);
        gpu.provide(recipe, sets_that_take_turns(least_bytes(&sizes, instance).0))?;
        let copy = gpu.copy()?;
        let expected = BTreeMap::new();
        let server = Server { setup: setup.clone(), kernel, gpu, on_gpu, expected };
        Ok((server, Reply::Ready { copy }))
    }

    fn expect(&mut self, n: usize) -> Result<Reply, Failure> {
        if self.expected.contains_key(&n) {
            return Ok(Reply::Right);
        }
        // Two key-value heads, so that one is not the other.
        let group = self.setup.hq / self.setup.hkv.max(1);
        let hkv = self.setup.hkv.min(2);
        let sizes = data::Sizes { batch: 1, n, hq: group * hkv, hkv };
        let kind = scores(&self.setup.scores)?;
        let loaded =
            data::inputs_with(self.kernel.instance(), &sizes, kind, SEED, &self.setup.with);
        let label = "the check of a schedule".to_owned();
        let mut case = Case { label, kernel: self.kernel.clone(), loaded, strided: false };
        against_cpu::zero_kinks(&mut case)?;
        let results = Backend::Cpu.results(&case).map_err(|stopped| stopped.failure(None))?;
        self.expected.insert(n, Expected { case, results });
        Ok(Reply::Right)
    }

    fn check(&self, axis: Axis, schedule: Schedule, n: usize) -> Result<Reply, Failure> {
        let Some(Expected { case, results: want }) = self.expected.get(&n) else {
            return Err(Failure::new(format_args!("nothing is expected of {n} positions")));
        };
        let inputs = case.loaded.inputs().map_err(failed)?;
        let d_o = case.loaded.d_o.as_ref().filter(|_| axis != Axis::Forward);
        let d_o = d_o.map(|t| t.view()).transpose().map_err(failed)?;
        let options =
            cuda::HostOptions { schedule: Some(schedule), ..cuda::HostOptions::default() };
        let (forward, gradients) =
            self.on_gpu.run_host(&inputs, d_o.as_ref(), &options).map_err(failed)?;
        let sparsek::Forward { o, lse, tau, expiry } = forward;
        let own = [("o", o), ("lse", lse), ("tau", tau), ("expiry", expiry)];
        let mut got: Vec<(String, Tensor)> =
            own.into_iter().map(|(name, t)| (name.to_owned(), t)).collect();
        if let Some(gradients) = gradients {
            got.extend(gradients.iter().map(|(name, t)| (name.to_owned(), t.clone())));
        }
        // In the order of what is expected; a forward has no gradients.
        let mut paired = Vec::with_capacity(want.len());
        let mut found = Vec::with_capacity(want.len());
        for (name, tensor) in want {
            if axis == Axis::Forward && name.starts_with("d_") {
                continue;
            }
            let result = got
                .iter()
                .find(|(n, _)| n == name)
                .ok_or_else(|| Failure::new(format_args!("the call gave no {name}")))?;
            found.push(result.clone());
            paired.push((name.clone(), tensor.clone()));
        }
        let measured = against_cpu::measure(&found, &paired, self.kernel.instance().elem)?;
        // The worst of those that do not hold.
        let wrong = measured.iter().filter(|m| !m.ok);
        let worst = wrong.max_by(|a, b| (a.error / a.limit).total_cmp(&(b.error / b.limit)));
        Ok(match worst {
            None => Reply::Right,
            Some(m) => Reply::Wrong {
                tensor: m.name.trim_end_matches(" (CPU)").to_owned(),
                error: m.error.is_finite().then_some(m.error),
                limit: m.limit,
            },
        })
    }

    /// Milliseconds of what the axis times. The first call takes memory for the pool, and does not count.
    fn time(
        &self,
        axis: Axis,
        schedule: Schedule,
        calls: usize,
        cutoff: Option<f64>,
    ) -> Result<Vec<f64>, Failure> {
        let mut times = Vec::new();
        if let Some(cutoff) = cutoff {
            times = self.calls(axis, schedule, 2)?;
            if times.iter().all(|ms| *ms > cutoff) {
                return Ok(times);
            }
        }
        let left = calls.saturating_sub(times.len());
        times.extend(if left > 0 { self.calls(axis, schedule, left)? } else { Vec::new() });
        Ok(times)
    }

    fn calls(&self, axis: Axis, schedule: Schedule, calls: usize) -> Result<Vec<f64>, Failure> {
        let pairs = self.back_to_back(axis, schedule, calls)?;
        Ok(pairs.into_iter().map(|(forward, backward)| forward + backward).collect())
    }

    /// Milliseconds of the forward and of the backward of calls that follow one another without a wait; 0
    /// for what the axis does not time.
    fn back_to_back(
        &self,
        axis: Axis,
        schedule: Schedule,
        calls: usize,
    ) -> Result<Vec<(f64, f64)>, Failure> {
        let options = cuda::Options { schedule: Some(schedule), ..cuda::Options::default() };
        let Server { gpu: Gpu { device, sets, .. }, on_gpu, .. } = self;
        let mut events = Vec::with_capacity(calls + 1);
        // The backward alone: of one forward for each set.
        let mut forwards = Vec::new();
        if axis == Axis::Backward {
            for set in sets {
                forwards.push(on_gpu.forward(&set.inputs(), &options).map_err(failed)?);
            }
        }
        for (at, set) in sets.iter().cycle().take(calls + 1).enumerate() {
            let inputs = set.inputs();
            let backward = |forward: &cuda::Forward| -> Result<(), Failure> {
                let d_o = set.d_o.as_ref().ok_or_else(|| Failure::new("there is no d_o"))?;
                on_gpu.backward(&inputs, forward, &d_o.view(), &options).map_err(failed)?;
                Ok(())
            };
            let start = mark(device)?;
            let forward = match axis {
                Axis::Backward => None,
                Axis::Forward | Axis::Chunk => {
                    Some(on_gpu.forward(&inputs, &options).map_err(failed)?)
                }
            };
            let between = mark(device)?;
            match (axis, &forward) {
                (Axis::Forward, _) => {}
                (_, Some(forward)) => backward(forward)?,
                (_, None) => backward(&forwards[at % forwards.len()])?,
            }
            events.push((start, between, mark(device)?));
        }
        device.synchronize().map_err(failed)?;
        let mut times = Vec::with_capacity(calls);
        for (start, between, end) in &events[1..] {
            let forward = f64::from(start.elapsed_ms(between).map_err(driver)?);
            let backward = f64::from(between.elapsed_ms(end).map_err(driver)?);
            times.push(match axis {
                Axis::Forward => (forward, 0.0),
                Axis::Backward => (0.0, backward),
                Axis::Chunk => (forward, backward),
            });
        }
        Ok(times)
    }

    fn figures(&self, schedules: &[Schedule]) -> Result<Reply, Failure> {
        let mut times: Vec<[Vec<f64>; 3]> = schedules.iter().map(|_| Default::default()).collect();
        for _ in 0..TURNS {
            for (schedule, times) in schedules.iter().zip(&mut times) {
                for (forward, backward) in self.back_to_back(Axis::Chunk, *schedule, CALLS)? {
                    times[1].push(forward);
                    times[2].push(backward);
                }
            }
        }
        for (schedule, times) in schedules.iter().zip(&mut times) {
            for set in self.gpu.sets.iter().cycle().take(PROFILED) {
                let profile = cuda::Profile::of_modules();
                let options = cuda::Options {
                    schedule: Some(*schedule),
                    profile: Some(&profile),
                    ..cuda::Options::default()
                };
                self.on_gpu.forward(&set.inputs(), &options).map_err(failed)?;
                let timings = profile.take().map_err(failed)?;
                let plan = timings.iter().find(|t| t.module == cuda::Module::Plan);
                times[0].extend(plan.map(|t| f64::from(t.ms)));
            }
        }
        let none = || Failure::new("times are no numbers");
        let median = |times: &[f64]| Spread::of(times).map(|s| s.median).ok_or_else(none);
        let one = |[plan, forward, backward]: &[Vec<f64>; 3]| {
            Ok([median(plan)?, median(forward)?, median(backward)?])
        };
        Ok(Reply::Figures(times.iter().map(one).collect::<Result<_, Failure>>()?))
    }
}

fn sizes(setup: &Setup, n: usize) -> data::Sizes {
    data::Sizes { batch: setup.batch, n, hq: setup.hq, hkv: setup.hkv }
}
