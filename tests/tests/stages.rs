//! Every stage of the built-in kernels between source and CUDA C, whose text is kept in
//! `kernels-generated/cuda`.

use sparsek::codegen::Target;
use sparsek::cuda::{CallShape, Module};
use sparsek::{Elem, Kernel, Spec};
use sparsek_dsl::backward;
use sparsek_dsl::parse::{CompiledKernel, compile_file};
use std::path::Path;

/// The kernels in their sources, as their authors wrote them.
fn kernels() -> Vec<CompiledKernel> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels-generated/src");
    let mut all = Vec::new();
    for file in ["window.rs", "extras.rs"] {
        let text = std::fs::read_to_string(folder.join(file)).expect(file);
        let compiled = compile_file(&text);
        assert!(compiled.diagnostics.is_empty(), "{file}: {:?}", compiled.diagnostics);
        all.extend(compiled.kernels);
    }
    assert_eq!(all.len(), sparsek_kernels::all().len(), "sources that this test does not read");
    all
}

/// A snapshot whose failure says how to accept the change.
fn snapshot(stage: &str, kernel: &str, text: &str) {
    let command = "INSTA_UPDATE=always cargo test -p sparsek-tests --test stages";
    let description = format!(
        "after a deliberate change, update with\n{command}\nor all with cargo xtask update"
    );
    insta::with_settings!({
        description => description,
        snapshot_path => "snapshots/stages",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(format!("{kernel}.{stage}"), text);
    });
}

#[test]
fn syntax_trees() {
    for kernel in kernels() {
        snapshot("ast", &kernel.ast.name.text, &kernel.ast.dump());
    }
}

#[test]
fn typed_programs_and_their_backward() {
    for kernel in kernels() {
        let program = kernel.program.expect("a kernel without diagnostics has a program");
        snapshot("program", &program.name, &program.to_string());
        snapshot("backward", &program.name, &backward::derive(&program).to_string());
    }
}

#[test]
fn schedules_and_plans() {
    for builtin in sparsek_kernels::all() {
        let program = builtin.program().expect("it loads");
        let spec = Spec::new(Elem::Bf16, 128).k(512).w(512);
        let kernel = Kernel::from_program(&program, &spec).expect("it is in the sets");
        for target in ["sm_90a", "sm_80"] {
            let of_target = Target::named(target).expect("a target");
            let code = kernel.code(&CallShape::group(4), of_target).expect("it fits");
            let plan = |module| code.plan(module).expect("it is lowered").to_string();
            let plans = Module::ALL.map(plan).join("\n");
            let text = format!("{}\n\n{plans}", code.schedule());
            snapshot(&format!("plan.{target}"), &program.name, &text);
        }
    }
}
