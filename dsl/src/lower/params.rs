//! Specialisation parameters, their sets, and the limits that their uses put on them.

use super::scope::Meaning;
use super::{Lowerer, Value};
use crate::ast::{self, Expr, ExprKind, Ident, Int, SetKind};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::ir::{ElemParam, Extent, IntSet, Op, Param, ParamId};
use crate::{Elem, Span};

/// What an extent is for, with its limits.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Use {
    HeadDim,
    Keys,
    Window,
    Sinks,
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Use::HeadDim => "the head dimension",
            Use::Keys => "the number of selected keys",
            Use::Window => "the window",
            Use::Sinks => "the number of sinks",
        }
    }

    fn rule(self) -> &'static str {
        match self {
            Use::HeadDim => "a multiple of 16 from 16 to 256",
            Use::Keys => "at least 1",
            Use::Window | Use::Sinks => "at least 0",
        }
    }

    fn allows(self, x: i64) -> bool {
        match self {
            Use::HeadDim => x % 16 == 0 && (16..=256).contains(&x),
            Use::Keys => x >= 1,
            Use::Window | Use::Sinks => x >= 0,
        }
    }
}

impl Lowerer<'_> {
    pub(super) fn param(&mut self, param: &ast::Param) {
        let name = &param.name;
        let Some(set) = &param.set else {
            self.declare(name, Meaning::IntParam(None));
            return;
        };
        if let SetKind::Elems(elems) = &set.kind {
            self.elem_param(name, elems);
            return;
        }
        let id = self.int_set(&set.kind, set.span).map(|int_set| {
            self.params.push(Param { name: name.text.clone(), set: int_set });
            self.param_sets.push(set.span);
            ParamId(self.params.len() as u32 - 1)
        });
        self.declare(name, Meaning::IntParam(id));
    }

    fn elem_param(&mut self, name: &Ident, elems: &[Ident]) {
        let mut set = Vec::new();
        for (n, elem) in elems.iter().enumerate() {
            let Some(found) = Elem::from_name(&elem.text) else {
                let near = nearest(&elem.text, Self::elem_names());
                let message = format!("`{}` is not an element type", elem.text);
                self.report(
                    Diagnostic::new(Code::UnknownType, elem.span, message)
                        .help("element types are bf16, f16 and f32")
                        .help_if(near.map(|n| format!("did you mean `{n}`?"))),
                );
                continue;
            };
            if let Some(first) = elems[..n].iter().find(|e| e.text == elem.text) {
                self.twice_in_set(&elem.text, elem.span, first.span);
                continue;
            }
            set.push(found);
        }
        let other =
            self.scope.names().find(|n| matches!(self.scope.look(n), Some(Meaning::ElemParam)));
        if let Some(other) = other.map(str::to_owned) {
            let first = self.scope.span(&other);
            self.report(
                Diagnostic::new(Code::Mismatch, name.span, "a second element type parameter")
                    .also(first, "the first")
                    .help("q, k, v and the output share one element type"),
            );
        } else {
            self.elem_set = set;
        }
        self.declare(name, Meaning::ElemParam);
    }

    fn twice_in_set(&mut self, what: &str, span: Span, first: Span) {
        self.report(
            Diagnostic::new(Code::InvalidSet, span, format!("{what} is in the set twice"))
                .also(first, "the first")
                .help("remove one of them"),
        );
    }

    fn int_set(&mut self, kind: &SetKind, span: Span) -> Option<IntSet> {
        let in_range = |int: &&Int| i32::try_from(int.value).is_err();
        let ints: Vec<&Int> = match kind {
            SetKind::Elems(_) => return None,
            SetKind::List(list) => list.iter().collect(),
            SetKind::Range(a, b) | SetKind::Multiples(a, b) => vec![a, b],
        };
        if let Some(large) = ints.iter().copied().find(in_range) {
            let message = format!("{} does not fit 32 bits", large.value);
            self.report(
                Diagnostic::new(Code::IntRange, large.span, message)
                    .help("integers of the language have 32 bits"),
            );
            return None;
        }
        let set = match kind {
            SetKind::Elems(_) => return None,
            SetKind::List(list) => {
                for (n, int) in list.iter().enumerate() {
                    if let Some(first) = list[..n].iter().find(|i| i.value == int.value) {
                        self.twice_in_set(&int.value.to_string(), int.span, first.span);
                        return None;
                    }
                }
                IntSet::List(list.iter().map(|i| i.value).collect())
            }
            SetKind::Range(lo, hi) => IntSet::Range { lo: lo.value, hi: hi.value },
            SetKind::Multiples(of, _) if of.value <= 0 => {
                self.report(
                    Diagnostic::new(Code::InvalidSet, of.span, "the divisor is not positive")
                        .help("`multiples_of(16) up to 256` holds 16, 32, .. 256"),
                );
                return None;
            }
            SetKind::Multiples(of, to) => IntSet::Multiples { of: of.value, up_to: to.value },
        };
        if set.bounds().is_none() {
            self.report(
                Diagnostic::new(Code::EmptySet, span, format!("the set {set} is empty"))
                    .label("no value is in this set")
                    .help("a kernel with an empty set cannot be instantiated; write its values"),
            );
            return None;
        }
        Some(set)
    }

    /// The element type named in a vector's type.
    pub(super) fn elem_named(&mut self, name: &Ident) -> Option<ElemParam> {
        match self.scope.read(&name.text) {
            Some(Meaning::ElemParam) => {
                let set = self.elem_set.clone();
                return Some(ElemParam { name: Some(name.text.clone()), set });
            }
            // A set that could not be read was reported.
            Some(Meaning::IntParam(None)) => return None,
            _ => {}
        }
        if let Some(elem) = Elem::from_name(&name.text) {
            return Some(ElemParam { name: None, set: vec![elem] });
        }
        let known: Vec<String> = self.scope.names().map(str::to_owned).collect();
        let near = nearest(&name.text, known.iter().map(String::as_str).chain(Self::elem_names()));
        let help = near.map(|n| format!("did you mean `{n}`?"));
        let message = format!("`{}` is not an element type", name.text);
        self.report(
            Diagnostic::new(Code::UnknownType, name.span, message)
                .help("declare it, as in `<E in [bf16, f16, f32]>`, or name bf16, f16 or f32")
                .help_if(help),
        );
        None
    }

    /// An integer literal or integer parameter in an expression.
    pub(super) fn extent(&mut self, expr: &Expr, usage: Use) -> Option<Extent> {
        let bare = expr.bare();
        match &bare.kind {
            ExprKind::Int(value) => self.literal_extent(*value, expr.span, usage),
            ExprKind::Neg(inner) => match inner.bare().kind {
                ExprKind::Int(value) => {
                    self.literal_extent(value.saturating_neg(), expr.span, usage)
                }
                _ => self.no_extent(expr, usage),
            },
            ExprKind::Name(name) => self.named_extent(name, expr.span, usage),
            ExprKind::Invalid => None,
            _ => self.no_extent(expr, usage),
        }
    }

    fn no_extent(&mut self, expr: &Expr, usage: Use) -> Option<Extent> {
        // What is wrong inside is reported first.
        if !matches!(self.value(expr), Value::Poison) {
            self.extent_error(expr.span, usage);
        }
        None
    }

    fn extent_error(&mut self, span: Span, usage: Use) {
        let message = format!("{} is an integer or an integer parameter", usage.name());
        self.report(
            Diagnostic::new(Code::Extent, span, message)
                .label("this is an expression")
                .help("declare a parameter for it, as in `<W in 0..=8192>`"),
        );
    }

    pub(super) fn literal_extent(&mut self, x: i64, span: Span, usage: Use) -> Option<Extent> {
        if usage.allows(x) && i32::try_from(x).is_ok() {
            return u32::try_from(x).ok().map(Extent::Literal);
        }
        let message = format!("{} cannot be {x}", usage.name());
        self.report_once(
            Diagnostic::new(Code::SetOutsideLimits, span, message)
                .help(format!("it is {}, and fits 32 bits", usage.rule())),
        );
        None
    }

    pub(super) fn named_extent(&mut self, name: &str, span: Span, usage: Use) -> Option<Extent> {
        let id = match self.scope.read(name) {
            Some(Meaning::IntParam(id)) => (*id)?,
            Some(Meaning::Let(Value::Poison)) => return None,
            Some(_) => {
                self.extent_error(span, usage);
                return None;
            }
            None => {
                self.unknown_name(name, span);
                return None;
            }
        };
        let set = self.params[id.0 as usize].set.clone();
        if let Some(bad) = samples(&set).into_iter().find(|x| !usage.allows(*x)) {
            let message = format!("`{name}` is {} and could be {bad}", usage.name());
            self.report_once(
                Diagnostic::new(Code::SetOutsideLimits, self.param_sets[id.0 as usize], message)
                    .label(format!("{} is {}", usage.name(), usage.rule()))
                    .also(span, "used here")
                    .help("leave only values in the set that its use allows"),
            );
            return None;
        }
        Some(Extent::Param(id))
    }

    /// An integer parameter as a value.
    pub(super) fn param_value(&mut self, id: ParamId, span: Span) -> Value {
        self.push(Op::Param(id), span)
    }
}

/// Members that break a rule of [`Use`] if any member does: such a rule is an interval, perhaps
/// with a divisor.
fn samples(set: &IntSet) -> Vec<i64> {
    let Some((lo, hi)) = set.bounds() else { return Vec::new() };
    match set {
        IntSet::List(list) => list.clone(),
        IntSet::Range { .. } => vec![lo, (lo + 1).min(hi), hi],
        IntSet::Multiples { of, .. } => vec![lo, (lo + of).min(hi), hi],
    }
}
