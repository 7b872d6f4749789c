//! Generated code: plan, CUDA C, PTX and cubin of a kernel's modules.

use super::{EmitArgs, ModuleName, Stage, instructions};
use crate::commands::failure;
use crate::failure::Failure;
use crate::table::Table;
use crate::target::Target;
use crate::terminal::{Channel, bytes, note, thousands};
use sparsek::cuda::nvrtc::Nvrtc;
use sparsek::cuda::{CallShape, Code, Module, Resources};
use sparsek::dsl::ir::Spec;
use sparsek::tuned::{Gpu, Source, Store};
use sparsek::{Elem, Kernel};
use sparsek_codegen::KernelPlan;
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
    let stage = args.stage();
    if args.json && stage != Stage::Plan {
        return Err(Failure::new("CUDA C, PTX and machine code have no serialised form")
            .help("use --json with --stage ir, backward or plan"));
    }
    let binary = matches!(stage, Stage::Cubin | Stage::Image);
    if binary && args.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new("machine code is not written to a terminal")
            .help("give a file with --output"));
    }
    let code = code(args, target)?;
    let modules: Vec<Module> = match (args.module, stage) {
        (Some(name), _) => vec![name.into()],
        (None, Stage::Plan | Stage::Image) => Module::ALL.to_vec(),
        (None, _) => vec![Module::Forward],
    };
    match stage {
        Stage::Plan => plan_text(args, &code, &modules),
        Stage::Image => images(&code, &modules),
        _ => one_module(stage, &code, modules[0]),
    }
}

/// CUDA C, PTX or machine code.
fn one_module(stage: Stage, code: &Code, module: Module) -> Result<Vec<u8>, Failure> {
    let plan = code.plan(module).map_err(|e| failure(e, None))?;
    let source = plan.cuda().map_err(Failure::new)?.text;
    if stage == Stage::Cuda {
        return Ok(source.into_bytes());
    }
    let label = format!("{module} of {}", plan.kernel);
    let nvrtc = Nvrtc::find().map_err(|e| failure(e, None))?;
    let target = code.target();
    let ptx = match stage {
        Stage::Ptx => Some(nvrtc.ptx(&label, &source, &target).map_err(|e| failure(e, None))?),
        _ => None,
    };
    let compiled = nvrtc.compile(&label, &source, &target).map_err(|e| failure(e, None))?;
    note(format_args!("the schedule is {}", code.schedule_source()));
    report(&plan, &compiled.cubin, &compiled.resources, ptx.as_deref())?;
    Ok(ptx.map_or(compiled.cubin, String::into_bytes))
}

/// Modules with all that is needed to launch them, one after the other.
fn images(code: &Code, modules: &[Module]) -> Result<Vec<u8>, Failure> {
    note(format_args!("the schedule is {}", code.schedule_source()));
    let mut bytes = Vec::new();
    for module in modules {
        let image = code.compile(*module).map_err(|e| failure(e, None))?;
        let plan = code.plan(*module).map_err(|e| failure(e, None))?;
        report(&plan, image.cubin(), image.resources(), None)?;
        bytes.extend(image.to_bytes().map_err(|e| failure(e, None))?);
    }
    Ok(bytes)
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

/// The kernel's code for the calls that the flags describe.
fn code(args: &EmitArgs, target: &Target) -> Result<Code, Failure> {
    let mut calls = CallShape::group(args.group);
    calls = args.without.iter().fold(calls, |calls, name| calls.without(name));
    calls = args.shared.iter().fold(calls, |calls, name| calls.shared(name));
    if let Some(wanted) = &args.wanted {
        calls = calls.wanted(wanted);
    }
    let failed = |e| failure(e, None);
    let mut kernel = instance(args, target)?;
    if args.tuned.is_some() {
        kernel = kernel.with_manifest(&target.manifest()?.to_json()).map_err(failed)?;
    }
    let mut code = kernel.code(&calls, args.target).map_err(failed)?;
    if let Some(gpu) = &args.tuned {
        let optional = target.program.inputs.iter().filter(|input| input.default.is_some());
        let optional: Vec<&str> = optional.map(|input| input.name.as_str()).collect();
        code = tuned(code, gpu, args.seq, &optional)?;
    }
    let Some(change) = &args.schedule else { return Ok(code) };
    let schedule = change.apply(code.schedule());
    Ok(code.with_schedule(schedule))
}

/// The code with the schedule that was tuned for a GPU. `optional` are inputs with a default.
fn tuned(code: Code, gpu: &str, longest: u64, optional: &[&str]) -> Result<Code, Failure> {
    if !sparsek::tuned::is_on() {
        return Err(Failure::new("SPARSEK_TUNED is off").help("unset it, or leave --tuned out"));
    }
    let capability = code.target().capability;
    let described = Gpu::new(gpu, (capability / 10, capability % 10));
    let store = Store::from_environment();
    let code = code.tuned(&described, longest, store.as_ref()).map_err(|e| failure(e, None))?;
    code.warnings().iter().for_each(note);
    match code.schedule_source() {
        Source::Model => {
            let message =
                format!("no schedule of these calls is tuned for {described}, N {longest}");
            let given = match optional {
                [] => String::new(),
                names => format!("; calls that leave out {} have --without", names.join(", ")),
            };
            Err(Failure::new(message).help(format_args!(
                "tune it with `sparsek tune`; `sparsek tune list` shows what is tuned{given}; without \
                 --tuned the cost model chooses"
            )))
        }
        _ => Ok(code),
    }
}

fn plan_text(args: &EmitArgs, code: &Code, modules: &[Module]) -> Result<Vec<u8>, Failure> {
    let schedule = code.schedule();
    let plans: Vec<KernelPlan> = modules
        .iter()
        .map(|module| code.plan(*module).map_err(|e| failure(e, None)))
        .collect::<Result<_, _>>()?;
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
    for plan in &plans {
        text.push_str(&format!("\n{plan}"));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text.into_bytes())
}

/// What the compiler made of a module, on standard error.
fn report(
    plan: &KernelPlan,
    cubin: &[u8],
    resources: &[Resources],
    ptx: Option<&str>,
) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "<entry",
        "registers",
        "spilled",
        "stack",
        "static shared",
        "dynamic shared",
        "threads",
    ]);
    for r in resources {
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
    let counted = match (ptx, instructions::in_cubin(cubin)) {
        (_, Some(counts)) => format!("machine instructions: {counts}"),
        (Some(ptx), None) => format!("PTX instructions: {}", instructions::in_ptx(ptx)),
        (None, None) => "instructions were not counted: there is no nvdisasm".to_owned(),
    };
    let size = bytes(cubin.len() as u64);
    let (module, target) = (plan.module.name(), &plan.target);
    let text = format!("{module} of {} for {target}: cubin of {size}\n", plan.kernel);
    Channel::Stderr.write(&format!("{text}{}  {counted}\n", table.render(2)))
}
