//! Names: what they mean, which are reserved, which nothing reads.

use super::{Lowerer, Value, function};
use crate::ast::Ident;
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::ir::{InputId, ParamId, Role};
use crate::{Elem, Span};
use std::collections::HashMap;

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    /// The element type parameter.
    ElemParam,
    /// An integer parameter; `None` when its set was wrong.
    IntParam(Option<ParamId>),
    /// An input; `None` when its type was wrong.
    Input(Option<InputId>, Role),
    /// A `let`.
    Let(Value),
}

#[derive(Clone, Debug)]
struct Entry {
    meaning: Meaning,
    span: Span,
    used: bool,
}

/// The names of a kernel in the order of their declaration.
#[derive(Default)]
pub(super) struct Scope {
    order: Vec<String>,
    entries: HashMap<String, Entry>,
}

impl Scope {
    /// What a name means; marks it as read.
    pub(super) fn read(&mut self, name: &str) -> Option<&Meaning> {
        let entry = self.entries.get_mut(name)?;
        entry.used = true;
        Some(&entry.meaning)
    }

    /// What a name means.
    pub(super) fn look(&self, name: &str) -> Option<&Meaning> {
        self.entries.get(name).map(|e| &e.meaning)
    }

    /// Where a name was declared.
    pub(super) fn span(&self, name: &str) -> Span {
        self.entries.get(name).map_or(Span::NONE, |e| e.span)
    }

    /// The declared names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(String::as_str)
    }
}

/// Names that kernels cannot give, with what they stand for.
fn reserved(name: &str) -> Option<&'static str> {
    match name {
        "q" | "k" | "v" | "u" => Some("the queries, keys, values and scores"),
        "o" | "lse" | "tau" | "expiry" => Some("a result of every kernel"),
        "cu_seqlens" => Some("the boundaries of packed sequences"),
        "causal" | "batch" => Some("a word of the language"),
        "sum" | "weighted_sum" | "mask_vjp" | "i32" => Some("a word of the language"),
        _ if function::named(name).is_some() => Some("a function of the language"),
        _ if Elem::from_name(name).is_some() => Some("an element type"),
        _ if name.starts_with("d_") => Some("gradients, which are named `d_` and the input"),
        _ => None,
    }
}

impl Lowerer<'_> {
    pub(super) fn declare_let(&mut self, name: &Ident, value: Value) {
        self.declare(name, Meaning::Let(value));
    }

    /// Declares a name unless it is taken or reserved, which is reported.
    pub(super) fn declare(&mut self, name: &Ident, meaning: Meaning) {
        let is_role = matches!(meaning, Meaning::Input(_, role) if role != Role::Extra);
        if !is_role && let Some(what) = reserved(&name.text) {
            let message = format!("the name `{}` is reserved", name.text);
            self.report(
                Diagnostic::new(Code::ReservedName, name.span, message)
                    .label(format!("it stands for {what}"))
                    .help("take another name"),
            );
        }
        if let Some(first) = self.scope.entries.get(&name.text) {
            let (first, is_let) = (first.span, matches!(meaning, Meaning::Let(_)));
            let message = format!("the name `{}` is given twice", name.text);
            let help = match is_let {
                true => "values do not change; give the second one another name",
                false => "give one of them another name",
            };
            self.report(
                Diagnostic::new(Code::DuplicateName, name.span, message)
                    .label("the second")
                    .also(first, "the first")
                    .help(help),
            );
            return;
        }
        self.scope.order.push(name.text.clone());
        let entry = Entry { meaning, span: name.span, used: false };
        self.scope.entries.insert(name.text.clone(), entry);
    }

    /// Reports a name that nothing has, with the nearest one that something has.
    pub(super) fn unknown_name(&mut self, name: &str, span: Span) {
        let words = ["causal", "batch"];
        if self.complete && matches!(name, "q" | "k" | "v") {
            // Reported where the inputs are declared.
            return;
        }
        let near = nearest(name, self.scope.names().chain(words)).map(str::to_owned);
        let mut diagnostic =
            Diagnostic::new(Code::UnknownName, span, format!("nothing is named `{name}`"));
        if let Some(f) = function::named(name) {
            diagnostic =
                Diagnostic::new(Code::UnknownName, span, format!("`{name}` is a function"))
                    .label("used as a value")
                    .help(format!("call it: `{}`", f.signature));
        } else if name == "u" {
            diagnostic = diagnostic.help("declare `u: PerKey` among the inputs");
        } else if let Some(near) = near {
            // The misspelt name was meant to be read.
            self.scope.read(&near);
            diagnostic = diagnostic
                .help(format!("did you mean `{near}`?"))
                .also(self.scope.span(&near), format!("`{near}` is declared here"));
        } else {
            diagnostic = diagnostic.help(
                "names are inputs, integer parameters and the `let`s above; coordinates are \
                 q.pos, k.pos, q.head, k.head and batch",
            );
        }
        self.report(diagnostic);
    }

    /// Reports what nothing reads.
    pub(super) fn unused(&mut self) {
        for name in std::mem::take(&mut self.scope.order) {
            let Some(entry) = self.scope.entries.get(&name) else { continue };
            let wrong = matches!(
                entry.meaning,
                Meaning::Input(None, _) | Meaning::IntParam(None) | Meaning::Let(Value::Poison)
            );
            // One mistake is one message.
            if entry.used || wrong {
                continue;
            }
            let span = entry.span;
            let (code, what, help) = match &entry.meaning {
                // Rules of their own say where q, k and v belong.
                Meaning::Input(_, Role::Query | Role::Key | Role::Value) => continue,
                Meaning::Input(..) => (
                    Code::UnusedInput,
                    "input",
                    "remove it, or use it: a tensor that changes nothing has no gradient",
                ),
                Meaning::ElemParam | Meaning::IntParam(_) => {
                    (Code::UnusedParameter, "parameter", "remove it, or use it")
                }
                Meaning::Let(_) => (Code::UnusedLet, "`let`", "remove it, or use it"),
            };
            let message = format!("the {what} `{name}` is never used");
            let message = message.replace("the `let` `", "the `let` of `");
            self.report(Diagnostic::new(code, span, message).help(help));
        }
    }
}
