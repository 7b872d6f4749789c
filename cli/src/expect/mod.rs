//! Expected tensors in an input file: which kernel they are of ([`applies`]), and how far results are
//! from them ([`compare`]).

pub(crate) mod compare;

use crate::tensors::file::TensorFile;
use crate::tensors::inputs::unknown;
use sparsek::dsl::ir::{Instance, Op, Program, Unary, ValueId};

/// Whether the file's expectations are of this instance; otherwise what differs.
pub(crate) fn applies(instance: &Instance, file: &TensorFile) -> Result<(), String> {
    let program = &instance.program;
    let differs = |what: &str, theirs: &str, ours: &str| {
        Err(format!("they are of {what} {theirs} and this is {what} {ours}"))
    };
    let gate = gate_kind(program);
    match file.text("gate") {
        Some(theirs) if theirs == gate => {}
        Some(theirs) => return differs("gate", theirs, gate),
        None => return Err("the file's metadata does not say their `gate`".to_owned()),
    }
    for (name, ours) in [("k", instance.k), ("window", instance.w), ("sinks", instance.sinks)] {
        let theirs = match file.text(name) {
            None if name == "sinks" => "0",
            None => return Err(format!("the file's metadata does not say their `{name}`")),
            Some(text) => text.trim(),
        };
        if theirs != ours.to_string() {
            return differs(name, theirs, &ours.to_string());
        }
    }
    if let Some(text) = file.text("softcap") {
        let theirs: f32 = text.trim().parse().unwrap_or(f32::NAN);
        if !softcap_is(program, theirs) {
            return Err(format!("they are of softcap {text} and this kernel's differs"));
        }
    }
    match unknown(program, file).first() {
        Some(name) => Err(format!("they may depend on `{name}`, which this kernel does not take")),
        None => Ok(()),
    }
}

/// Where a program has its gate: `value`, `key`, `both`, `straight_through` (value 1 everywhere),
/// `hard` (nowhere), or `other`.
pub(crate) fn gate_kind(program: &Program) -> &'static str {
    let softmax = program.nodes.iter().find_map(|n| match n.op {
        Op::Softmax { logit, .. } => Some(logit),
        _ => None,
    });
    let weight = program.output_named("o").and_then(|o| match program.node(o.value).op {
        Op::WeightedSum { weight, .. } => Some(weight),
        _ => None,
    });
    let (Some(logit), Some(weight)) = (softmax, weight) else { return "other" };
    match (gates_in(program, logit), gates_in(program, weight)) {
        (Gates { plain: false, straight: false }, Gates { plain: false, straight: false }) => {
            "hard"
        }
        (Gates { plain: false, .. }, Gates { plain: false, .. }) => "straight_through",
        (Gates { plain: false, straight: false }, Gates { plain: true, straight: false }) => {
            "value"
        }
        (Gates { plain: true, straight: false }, Gates { plain: false, straight: false }) => "key",
        (Gates { plain: true, straight: false }, Gates { plain: true, straight: false }) => "both",
        _ => "other",
    }
}

/// Which forms of the gate an expression holds.
struct Gates {
    plain: bool,
    straight: bool,
}

/// Gates among the operands of `root`, not looking into a softmax or a seen set.
fn gates_in(program: &Program, root: ValueId) -> Gates {
    let mut gates = Gates { plain: false, straight: false };
    walk(program, root, |op| {
        match op {
            Op::Sparsek { .. } => gates.plain = true,
            Op::StraightThrough(_) => gates.straight = true,
            _ => {}
        }
        !matches!(op, Op::Softmax { .. } | Op::Seen(_) | Op::StraightThrough(_))
    });
    gates
}

/// Visits `root` and its operands once each; `into` says whether to go on to a node's operands.
fn walk(program: &Program, root: ValueId, mut into: impl FnMut(&Op) -> bool) {
    let mut seen = vec![false; program.nodes.len()];
    let mut stack = vec![root];
    while let Some(v) = stack.pop() {
        if std::mem::replace(&mut seen[v.index()], true) {
            continue;
        }
        let op = &program.node(v).op;
        if into(op) {
            op.for_each_operand(|o| stack.push(o));
        }
    }
}

/// Whether the logit is capped softly at `cap` (0: not at all).
fn softcap_is(program: &Program, cap: f32) -> bool {
    let logit = program.nodes.iter().find_map(|n| match n.op {
        Op::Softmax { logit, .. } => Some(logit),
        _ => None,
    });
    let Some(logit) = logit else { return false };
    let (mut tanh, mut constant) = (false, false);
    walk(program, logit, |op| {
        match op {
            Op::Unary(Unary::Tanh, _) => tanh = true,
            Op::Const(x) if x.get() == cap => constant = true,
            _ => {}
        }
        true
    });
    if cap == 0.0 { !tanh } else { tanh && constant }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparsek::{Elem, Spec};

    #[test]
    fn built_in_gates_are_recognised() {
        for (name, gate) in [
            ("sparsek-value", "value"),
            ("sparsek-key", "key"),
            ("sparsek-both", "both"),
            ("sparsek-hard", "hard"),
            ("sparsek-straight-through", "straight_through"),
            ("sparsek-value-sinks", "value"),
        ] {
            let program = sparsek_kernels::builtin(name).unwrap().program().unwrap();
            assert_eq!(gate_kind(&program), gate, "{name}");
        }
    }

    #[test]
    fn softcap_is_recognised() {
        let spec = Spec::new(Elem::F32, 32).k(4).w(4);
        let program = |name| {
            let program = sparsek_kernels::builtin(name).unwrap().program().unwrap();
            program.instantiate(&spec).unwrap().program
        };
        assert!(softcap_is(&program("sparsek-slope-softcap"), 5.0));
        assert!(!softcap_is(&program("sparsek-slope-softcap"), 0.0));
        assert!(softcap_is(&program("sparsek-value"), 0.0));
    }
}
