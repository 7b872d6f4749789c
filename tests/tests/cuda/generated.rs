//! The CUDA C that is kept in the repository compiles as it is.

use crate::compile::in_parallel;
use sparsek::cuda::nvrtc::Nvrtc;
use sparsek_codegen::Target;
use sparsek_kernels::generated::{File, files};

/// The target in the file's header.
fn target(file: &File) -> Target {
    let named = file.text.lines().find_map(|line| line.strip_prefix("// target    "));
    let name = named.and_then(|rest| rest.split(',').next()).expect(file.path);
    Target::named(name).expect(file.path)
}

#[test]
fn kept_files_compile_and_spill_nothing() {
    let nvrtc = Nvrtc::find().expect("`cargo xtask nvrtc` fetches NVRTC");
    in_parallel(files(), |file| match nvrtc.compile(file.path, file.text, &target(file)) {
        Ok(compiled) => {
            let spilled = compiled.resources.iter().filter(|r| r.spill_stores + r.spill_loads > 0);
            spilled.map(|r| format!("{}: {} spills", file.path, r.entry)).collect()
        }
        Err(e) => vec![format!("{}: {e}", file.path)],
    });
}
