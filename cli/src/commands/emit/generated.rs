//! Generated code: plan, CUDA C, PTX and cubin of a kernel's modules.

use super::{EmitArgs, ModuleName, Stage, instructions};
use crate::commands::failure;
use crate::failure::Failure;
use crate::schedule;
use crate::table::Table;
use crate::target::Target;
use crate::terminal::{Channel, bytes, thousands};
use sparsek::cuda::nvrtc::{Compiled, Nvrtc};
use sparsek::dsl::ir::Spec;
use sparsek::{Elem, Kernel};
use sparsek_codegen::{KernelPlan, Module, Schedule};
use std::io::IsTerminal;

impl From<ModuleName> for Module {
    fn from(name: ModuleName) -> Module {
        match name {
            ModuleName::Plan => Module::Plan,
            ModuleName::Forward => Module::Forward,
            ModuleName::Backward => Module::Backward,
        }
    }
}

/// The bytes of the stage that was asked for.
pub(super) fn emit(args: &EmitArgs, target: &Target) -> Result<Vec<u8>, Failure> {
    if args.json && args.stage != Stage::Plan {
        return Err(Failure::new("CUDA C, PTX and machine code have no serialised form")
            .help("use --json with --stage ir, backward or plan"));
    }
    if args.stage == Stage::Cubin && args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new("machine code is not written to a terminal")
            .help("give a file with --output"));
    }
    let kernel = instance(args, target)?;
    let (schedule, plans) = plans(args, &kernel)?;
    if args.stage == Stage::Plan {
        return plan_text(args, &schedule, &plans);
    }
    let [plan] = plans.as_slice() else {
        return Err(Failure::new("one module is emitted at a time").help("choose it with --module"));
    };
    let source = plan.cuda().map_err(Failure::new)?.text;
    let label = format!("{} of {}", plan.module.name(), plan.kernel);
    match args.stage {
        Stage::Ptx => {
            let nvrtc = Nvrtc::find().map_err(|e| failure(e, None))?;
            let ptx = nvrtc.ptx(&label, &source, &args.target).map_err(|e| failure(e, None))?;
            let compiled =
                nvrtc.compile(&label, &source, &args.target).map_err(|e| failure(e, None))?;
            report(plan, &compiled, Some(&ptx))?;
            Ok(ptx.into_bytes())
        }
        Stage::Cubin => {
            let nvrtc = Nvrtc::find().map_err(|e| failure(e, None))?;
            let compiled =
                nvrtc.compile(&label, &source, &args.target).map_err(|e| failure(e, None))?;
            report(plan, &compiled, None)?;
            Ok(compiled.cubin)
        }
        _ => Ok(source.into_bytes()),
    }
}

fn instance(args: &EmitArgs, target: &Target) -> Result<Kernel, Failure> {
    let flags = args.parameters.flags()?;
    let program = &target.program;
    let elem = flags.elem.or_else(|| {
        // What models are trained in, where the kernel takes it.
        let set = &program.elem.set;
        set.iter().copied().find(|e| *e == Elem::Bf16).or(set.first().copied())
    });
    let d = args.head_dim.or_else(|| program.head_dim.literal().map(i64::from));
    let Some(d) = d else {
        return Err(Failure::new(format_args!("kernel {} needs a head dimension", program.name))
            .help("give it with --head-dim D"));
    };
    let mut spec = Spec::new(elem.unwrap_or(Elem::F32), d);
    (spec.k, spec.w, spec.set) = (flags.k, flags.window, flags.set);
    Kernel::from_program(program, &spec).map_err(|e| failure(e, None))
}

/// The kernel as calls that give every input would have it compiled; PerQuery and PerKey inputs
/// have a head axis.
fn plans(args: &EmitArgs, kernel: &Kernel) -> Result<(Schedule, Vec<KernelPlan>), Failure> {
    let problem = schedule::problem(kernel, args.group, |_| true);
    let schedule = schedule::choose(&problem, &args.target, args.schedule.as_ref())?;
    let modules: Vec<Module> = match (args.module, args.stage) {
        (Some(name), _) => vec![name.into()],
        (None, Stage::Plan) => Module::ALL.to_vec(),
        (None, _) => vec![Module::Forward],
    };
    let plans = modules
        .into_iter()
        .map(|module| KernelPlan::new(module, &problem, &schedule, &args.target))
        .collect::<Result<_, _>>()
        .map_err(Failure::new)?;
    Ok((schedule, plans))
}

fn plan_text(
    args: &EmitArgs,
    schedule: &Schedule,
    plans: &[KernelPlan],
) -> Result<Vec<u8>, Failure> {
    if args.json {
        let module = |plan: &KernelPlan| {
            serde_json::json!({
                "module": plan.module,
                "kernel": plan.kernel,
                "target": plan.target,
                "interface": plan.interface,
            })
        };
        let modules: Vec<_> = plans.iter().map(module).collect();
        let value = serde_json::json!({ "schedule": schedule, "modules": modules });
        let mut text = serde_json::to_vec_pretty(&value).map_err(Failure::new)?;
        text.push(b'\n');
        return Ok(text);
    }
    let mut text = format!("{schedule}\n");
    for plan in plans {
        text.push_str(&format!("\n{plan}"));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text.into_bytes())
}

/// What the compiler made of a module, on standard error.
fn report(plan: &KernelPlan, compiled: &Compiled, ptx: Option<&str>) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "<entry",
        "registers",
        "spilled",
        "stack",
        "static shared",
        "dynamic shared",
        "threads",
    ]);
    for r in &compiled.resources {
        let launch = plan.interface.launches.iter().find(|l| l.entry == r.entry);
        let of = |f: fn(&sparsek_codegen::Launch) -> u32| {
            launch.map_or("-".to_owned(), |l| thousands(f(l) as usize))
        };
        table.row([
            r.entry.clone(),
            r.registers.to_string(),
            (r.spill_stores + r.spill_loads).to_string(),
            r.stack.to_string(),
            r.shared.to_string(),
            of(|l| l.shared),
            of(|l| l.threads),
        ]);
    }
    let counted = match (ptx, instructions::in_cubin(&compiled.cubin)) {
        (_, Some(counts)) => format!("machine instructions: {counts}"),
        (Some(ptx), None) => format!("PTX instructions: {}", instructions::in_ptx(ptx)),
        (None, None) => "instructions were not counted: there is no nvdisasm".to_owned(),
    };
    let size = bytes(compiled.cubin.len() as u64);
    let (module, target) = (plan.module.name(), &plan.target);
    let text = format!("{module} of {} for {target}: cubin of {size}\n", plan.kernel);
    Channel::Stderr.write(&format!("{text}{}  {counted}\n", table.render(2)))
}
