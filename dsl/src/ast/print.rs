//! A kernel as source text.

use super::{Expr, ExprKind, Input, Int, Kernel, Param, Section, Set, SetKind, TypeArg, TypeExpr};
use std::fmt::{self, Display, Formatter};

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn ints(items: &[Int]) -> String {
    list(items, |i| i.value.to_string())
}

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for line in &self.docs {
            writeln!(f, "///{}{line}", if line.is_empty() { "" } else { " " })?;
        }
        if let Some(tuned) = &self.tuned {
            writeln!(f, "#[tuned({:?})]", tuned.path)?;
        }
        if !self.visibility.is_empty() {
            write!(f, "{} ", self.visibility)?;
        }
        write!(f, "kernel {}", self.name.text)?;
        if !self.params.is_empty() {
            write!(f, "<{}>", list(&self.params, Param::to_string))?;
        }
        writeln!(f, "(")?;
        for input in &self.inputs {
            writeln!(f, "    {input},")?;
        }
        match &self.output {
            Some(output) => writeln!(f, ") -> {output} {{")?,
            None => writeln!(f, ") -> <unreadable> {{")?,
        }
        for binding in &self.lets {
            writeln!(f, "    let {} = {};", binding.name.text, binding.value)?;
        }
        if let Some(result) = &self.result {
            writeln!(f, "    {result}")?;
        }
        writeln!(f, "}}")?;
        if !self.schedule.is_empty() {
            writeln!(f, "schedule {{")?;
            for section in &self.schedule {
                writeln!(f, "    {section}")?;
            }
            writeln!(f, "}}")?;
        }
        Ok(())
    }
}

impl Display for Param {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.set {
            Some(set) => write!(f, "{} in {set}", self.name.text),
            None => write!(f, "{} in <unreadable>", self.name.text),
        }
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            SetKind::Elems(elems) => write!(f, "[{}]", list(elems, |e| e.text.clone())),
            SetKind::List(values) => write!(f, "[{}]", ints(values)),
            SetKind::Range(lo, hi) => write!(f, "{}..={}", lo.value, hi.value),
            SetKind::Multiples(of, to) => {
                write!(f, "multiples_of({}) up to {}", of.value, to.value)
            }
        }
    }
}

impl Display for Input {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.ty {
            Some(ty) => write!(f, "{}: {ty}", self.name.text)?,
            None => write!(f, "{}: <unreadable>", self.name.text)?,
        }
        match &self.default {
            Some(default) => write!(f, " = {default}"),
            None => Ok(()),
        }
    }
}

impl Display for TypeExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name.text)?;
        if self.args.is_empty() {
            return Ok(());
        }
        let arg = |a: &TypeArg| match a {
            TypeArg::Name(name) => name.text.clone(),
            TypeArg::Int(int) => int.value.to_string(),
        };
        write!(f, "<{}>", list(&self.args, arg))
    }
}

impl Display for Section {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {{ ", self.pass.name())?;
        for knob in &self.knobs {
            write!(f, "{} in [{}]; ", knob.name.name(), ints(&knob.values))?;
        }
        f.write_str("}")
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ExprKind::Float(x) => write!(f, "{x:?}"),
            ExprKind::Int(n) => write!(f, "{n}"),
            ExprKind::Name(name) => f.write_str(name),
            ExprKind::Field(base, field) => write!(f, "{}.{}", base.text, field.text),
            ExprKind::Neg(x) => write!(f, "-{x}"),
            ExprKind::Not(x) => write!(f, "!{x}"),
            ExprKind::Binary(op, _, a, b) => write!(f, "{a} {} {b}", op.name()),
            ExprKind::Call { function, args, named } => {
                let named = named.iter().map(|(name, x)| format!("{} = {x}", name.text));
                let all: Vec<String> = args.iter().map(Expr::to_string).chain(named).collect();
                write!(f, "{}({})", function.text, all.join(", "))
            }
            ExprKind::Paren(x) => write!(f, "({x})"),
            ExprKind::Invalid => f.write_str("<unreadable>"),
        }
    }
}
