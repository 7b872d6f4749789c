//! Counts of the instructions that decide a kernel's speed.

use sparsek::cuda::nvrtc::Nvrtc;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Opcodes of machine code: tensor core products of a warp and of four, tile loads from shared
/// memory, asynchronous copies, exponentials and the like, local memory.
const MACHINE: [&str; 8] = ["HMMA", "HGMMA", "LDSM", "LDGSTS", "UTMALDG", "MUFU", "LDL", "STL"];

/// Instructions of PTX.
const PTX: [&str; 4] = ["mma.sync", "wgmma.mma_async", "ldmatrix", "cp.async."];

/// Counts in machine code, disassembled by nvdisasm; `None` where there is none.
pub(super) fn in_cubin(cubin: &[u8]) -> Option<String> {
    let mut file = tempfile::Builder::new().suffix(".cubin").tempfile().ok()?;
    file.write_all(cubin).ok()?;
    file.flush().ok()?;
    let run = |tool: PathBuf| Command::new(tool).arg("--print-code").arg(file.path()).output();
    let ran = tools().into_iter().find_map(|tool| run(tool).ok().filter(|o| o.status.success()))?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    // `/*0a10*/ @P0 HMMA.16816.F32.BF16 R4, …;`
    let opcodes: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("/*")?.split_once("*/"))
        .filter_map(|(_, rest)| rest.split_whitespace().find(|word| !word.starts_with('@')))
        .collect();
    let is = |opcode: &str, name: &str| opcode.split('.').next() == Some(name);
    let count = |name: &str| opcodes.iter().filter(|opcode| is(opcode, name)).count();
    Some(listed(&MACHINE, count))
}

/// Counts in PTX.
pub(super) fn in_ptx(ptx: &str) -> String {
    listed(&PTX, |name| ptx.lines().filter(|line| line.trim_start().starts_with(name)).count())
}

fn listed(names: &[&str], count: impl Fn(&str) -> usize) -> String {
    let found = names.iter().map(|name| (name, count(name))).filter(|(_, n)| *n > 0);
    let found: Vec<String> =
        found.map(|(name, n)| format!("{} {n}", name.trim_end_matches('.'))).collect();
    if found.is_empty() { "none of note".to_owned() } else { found.join(", ") }
}

/// Where nvdisasm may lie: beside NVRTC, in a CUDA installation, on the path.
fn tools() -> Vec<PathBuf> {
    let beside = Nvrtc::find().ok().map(|n| n.path().to_owned());
    let beside =
        beside.iter().flat_map(|path| path.ancestors().skip(1).take(3)).map(|p| p.join("bin"));
    let installed = std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let usual = [PathBuf::from("/usr/local/cuda/bin"), PathBuf::new()];
    beside.chain(installed).chain(usual).map(|folder| folder.join("nvdisasm")).collect()
}

#[cfg(test)]
mod tests {
    use super::in_ptx;

    #[test]
    fn instructions_of_ptx() {
        let ptx = "\tldmatrix.sync.aligned.m8n8.x4 {%r1};\n\tmma.sync.aligned.m16n8k16 {};\n\
                   \tmma.sync.aligned.m16n8k16 {};\n\t// mma.sync\n\tret;\n";
        assert_eq!(in_ptx(ptx), "mma.sync 2, ldmatrix 1");
        assert_eq!(in_ptx("ret;"), "none of note");
    }
}
