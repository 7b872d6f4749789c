//! A kernel as an indented tree, one item a line.

use super::{Expr, ExprKind, Kernel};
use std::fmt::Write;

impl Kernel {
    /// The tree of the kernel, one item a line, children indented by two columns.
    pub fn dump(&self) -> String {
        let mut out = String::new();
        let mut line = |depth: usize, text: &str| push_line(&mut out, depth, text);
        let visibility = self.visibility.to_string();
        let visibility = if visibility.is_empty() { String::new() } else { visibility + " " };
        line(0, &format!("{visibility}kernel {}", self.name.text));
        for doc in &self.docs {
            line(1, format!("doc {doc}").trim_end());
        }
        if let Some(tuned) = &self.tuned {
            line(1, &format!("tuned {:?}", tuned.path));
        }
        for param in &self.params {
            line(1, &format!("param {param}"));
        }
        for input in &self.inputs {
            match &input.ty {
                Some(ty) => line(1, &format!("input {}: {ty}", input.name.text)),
                None => line(1, &format!("input {}", input.name.text)),
            }
            if let Some(default) = &input.default {
                line(2, "default");
                expression(default, &mut |depth, text| line(depth + 3, text));
            }
        }
        if let Some(output) = &self.output {
            line(1, &format!("output {output}"));
        }
        for binding in &self.lets {
            line(1, &format!("let {}", binding.name.text));
            expression(&binding.value, &mut |depth, text| line(depth + 2, text));
        }
        if let Some(result) = &self.result {
            line(1, "result");
            expression(result, &mut |depth, text| line(depth + 2, text));
        }
        for section in &self.schedule {
            line(1, &format!("schedule {section}"));
        }
        out
    }
}

fn push_line(out: &mut String, depth: usize, text: &str) {
    for _ in 0..depth {
        out.push_str("  ");
    }
    out.push_str(text);
    out.push('\n');
}

fn expression(x: &Expr, line: &mut dyn FnMut(usize, &str)) {
    // Parentheses show as nesting.
    let x = x.bare();
    let mut head = String::new();
    let children: Vec<&Expr> = match &x.kind {
        ExprKind::Float(value) => {
            let _ = write!(head, "float {value:?}");
            Vec::new()
        }
        ExprKind::Int(value) => {
            let _ = write!(head, "int {value}");
            Vec::new()
        }
        ExprKind::Name(name) => {
            let _ = write!(head, "name {name}");
            Vec::new()
        }
        ExprKind::Field(base, field) => {
            let _ = write!(head, "coordinate {}.{}", base.text, field.text);
            Vec::new()
        }
        ExprKind::Neg(inner) => {
            head.push_str("neg");
            vec![inner]
        }
        ExprKind::Not(inner) => {
            head.push_str("not");
            vec![inner]
        }
        ExprKind::Binary(op, _, a, b) => {
            let _ = write!(head, "binary {}", op.name());
            vec![a, b]
        }
        ExprKind::Call { function, args, named } => {
            let _ = write!(head, "call {}", function.text);
            for (name, _) in named {
                let _ = write!(head, " (last: {})", name.text);
            }
            args.iter().chain(named.iter().map(|(_, x)| x)).collect()
        }
        ExprKind::Paren(inner) => vec![inner],
        ExprKind::Invalid => {
            head.push_str("unreadable");
            Vec::new()
        }
    };
    line(0, &head);
    for child in children {
        expression(child, &mut |depth, text| line(depth + 1, text));
    }
}
