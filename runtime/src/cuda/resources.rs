//! What a compiled kernel takes of a multiprocessor, as ptxas reports it.

use serde::{Deserialize, Serialize};

/// Resources of one entry of a cubin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// The entry.
    pub entry: String,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of the stack frame of a thread.
    pub stack: u32,
    /// Bytes that a thread stores to spilled registers.
    pub spill_stores: u32,
    /// Bytes that a thread loads from spilled registers.
    pub spill_loads: u32,
    /// Bytes of static shared memory of a block.
    pub shared: u32,
}

/// The resources of every entry, from what `ptxas -v` prints:
///
/// ```text
/// ptxas info    : Compiling entry function 'scale' for 'sm_90a'
/// ptxas info    : Function properties for scale
///     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
/// ptxas info    : Used 10 registers, used 1 barriers, 256 bytes smem
/// ```
///
/// Functions that are called and not inlined have properties too; those belong to no entry.
#[cfg(any(feature = "jit", test))]
pub(crate) fn parse(log: &str) -> Vec<Resources> {
    let mut all: Vec<Resources> = Vec::new();
    let mut described = String::new();
    for line in log.lines() {
        if let Some(rest) = after(line, "Compiling entry function '") {
            let entry = rest.split('\'').next().unwrap_or_default().to_owned();
            described.clone_from(&entry);
            all.push(Resources { entry, ..Resources::default() });
        } else if let Some(rest) = after(line, "Function properties for ") {
            rest.trim().clone_into(&mut described);
        } else if let Some(last) = all.last_mut().filter(|r| r.entry == described) {
            let number = |unit: &str| before(line, unit);
            last.stack = number(" bytes stack frame").unwrap_or(last.stack);
            last.spill_stores = number(" bytes spill stores").unwrap_or(last.spill_stores);
            last.spill_loads = number(" bytes spill loads").unwrap_or(last.spill_loads);
            last.registers = number(" registers").unwrap_or(last.registers);
            last.shared = number(" bytes smem").unwrap_or(last.shared);
        }
    }
    all
}

#[cfg(any(feature = "jit", test))]
fn after<'a>(line: &'a str, what: &str) -> Option<&'a str> {
    line.find(what).map(|at| &line[at + what.len()..])
}

/// The number that stands before `unit`.
#[cfg(any(feature = "jit", test))]
fn before(line: &str, unit: &str) -> Option<u32> {
    let text = &line[..line.find(unit)?];
    let start = text.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    text[start..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_and_called_functions_are_not() {
        let log = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'sweep' for 'sm_90a'
ptxas info    : Function properties for sweep
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 168 registers, used 3 barriers, 16 bytes cumulative stack size, 1024 bytes smem
ptxas info    : Function properties for __internal_slowpath
    40 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'finish' for 'sm_90a'
ptxas info    : Function properties for finish
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
ptxas info    : Compile time = 1.000 ms
";
        let sweep = Resources {
            entry: "sweep".to_owned(),
            registers: 168,
            stack: 16,
            spill_stores: 8,
            spill_loads: 12,
            shared: 1024,
        };
        let finish =
            Resources { entry: "finish".to_owned(), registers: 10, ..Resources::default() };
        assert_eq!(parse(log), [sweep, finish]);
        assert_eq!(parse(""), []);
    }
}
