//! Schedules on the command line: what is changed of the compiler's own choice.

use crate::failure::Failure;
use sparsek::Kernel;
use sparsek::dsl::ir::{Class, Role};
use sparsek_codegen::tune::{Machine, Workload};
use sparsek_codegen::{Family, Given, PassSchedule, Problem, Schedule, Target};
use std::fmt;
use std::str::FromStr;

/// Some of the values of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PassChange {
    family: Option<Family>,
    q: Option<u32>,
    kv: Option<u32>,
    warps: Option<u32>,
    stages: Option<u32>,
}

/// The value of `--schedule`: what is not named stays as the compiler chooses it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    text: String,
    forward: PassChange,
    backward: PassChange,
    chunk: Option<u32>,
}

const FORM: &str = "write it as `forward: q 128 kv 64 warps 4 stages 2 family sm80; backward: q 64; \
                    chunk 512`, with any of its parts; families are sm80 and sm90";

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Change, String> {
        let mut change = Change { text: text.trim().to_owned(), ..Change::default() };
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once(':') {
                Some(("forward", values)) => change.forward = pass(values)?,
                Some(("backward", values)) => change.backward = pass(values)?,
                _ => match part.strip_prefix("chunk").map(|n| n.trim().parse()) {
                    Some(Ok(chunk)) => change.chunk = Some(chunk),
                    _ => return Err(FORM.to_owned()),
                },
            }
        }
        Ok(change)
    }
}

fn pass(values: &str) -> Result<PassChange, String> {
    let mut change = PassChange::default();
    let words: Vec<&str> = values.split_whitespace().collect();
    for pair in words.chunks(2) {
        let &[name, value] = pair else { return Err(FORM.to_owned()) };
        if name == "family" {
            change.family = Some(Family::named(value).ok_or_else(|| FORM.to_owned())?);
            continue;
        }
        let slot = match name {
            "q" => &mut change.q,
            "kv" => &mut change.kv,
            "warps" => &mut change.warps,
            "stages" => &mut change.stages,
            _ => return Err(FORM.to_owned()),
        };
        *slot = Some(value.parse().map_err(|_| FORM.to_owned())?);
    }
    Ok(change)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Change {
    /// The schedule with the change made.
    pub(crate) fn apply(&self, to: Schedule) -> Schedule {
        let pass = |change: &PassChange, to: PassSchedule| PassSchedule {
            family: change.family.unwrap_or(to.family),
            tile_q: change.q.unwrap_or(to.tile_q),
            tile_kv: change.kv.unwrap_or(to.tile_kv),
            warps: change.warps.unwrap_or(to.warps),
            stages: change.stages.unwrap_or(to.stages),
        };
        Schedule {
            chunk: self.chunk.unwrap_or(to.chunk),
            forward: pass(&self.forward, to.forward),
            backward: pass(&self.backward, to.backward),
        }
    }
}

/// A kernel for calls that give the inputs that `is_given` names; PerQuery and PerKey inputs have a
/// head axis.
pub(crate) fn problem(
    kernel: &Kernel,
    group: u32,
    is_given: impl Fn(&sparsek::dsl::ir::Input) -> bool,
) -> Problem<'_> {
    let instance = kernel.instance();
    let given = instance.program.inputs.iter().filter(|input| is_given(input));
    let given = given.map(|input| Given {
        name: input.name.clone(),
        per_head: input.role == Role::Extra
            && matches!(input.ty.class, Class::PerQuery | Class::PerKey),
    });
    Problem { instance, backward: kernel.backward_program(), group, given: given.collect() }
}

/// The cost model's choice for the usual calls, changed.
pub(crate) fn choose(
    problem: &Problem<'_>,
    target: &Target,
    change: Option<&Change>,
) -> Result<Schedule, Failure> {
    let (machine, workload) = (Machine::of(target), Workload::default());
    let chosen = Schedule::choose(problem, target, &machine, &workload).map_err(Failure::new)?;
    Ok(change.map_or(chosen, |change| change.apply(chosen)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let family = Family::Sm80;
        let pass = PassSchedule { family, tile_q: 128, tile_kv: 64, warps: 4, stages: 2 };
        let chosen = Schedule { chunk: 512, forward: pass, backward: pass };
        let changed = |text: &str| text.parse::<Change>().unwrap().apply(chosen);
        assert_eq!(changed(""), chosen);
        let expected = Schedule {
            chunk: 256,
            forward: PassSchedule { tile_q: 64, stages: 3, ..pass },
            backward: PassSchedule { warps: 8, ..pass },
        };
        assert_eq!(changed("forward: q 64 stages 3; backward: warps 8; chunk 256"), expected);
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["forward", "forward: q", "forward: q x", "sideways: q 64", "chunk", "chunk x"]
        {
            assert!(text.parse::<Change>().is_err(), "{text}");
        }
    }
}
