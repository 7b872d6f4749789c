//! Inputs, their roles, types and defaults, and the output.

use super::params::Use;
use super::scope::Meaning;
use super::{Lowerer, Value};
use crate::Span;
use crate::ast::{self, Ident, TypeArg, TypeExpr};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::ir::{Class, Input, Kind, Op, Role, Type, ValueId};

const TYPES: [&str; 6] = ["Query", "Key", "Scalar", "PerHead", "PerQuery", "PerKey"];

/// The role that a name stands for.
fn role_named(name: &str) -> Role {
    match name {
        "q" => Role::Query,
        "k" => Role::Key,
        "v" => Role::Value,
        "u" => Role::Score,
        _ => Role::Extra,
    }
}

/// The type that an input in a role is declared with.
fn declared(role: Role) -> &'static str {
    match role {
        Role::Query => "Query<E, D>",
        Role::Key | Role::Value => "Key<E, D>",
        Role::Score => "PerKey",
        Role::Extra | Role::Output | Role::Lse | Role::OutputGrad => {
            "Scalar, PerHead, PerQuery or PerKey"
        }
    }
}

impl Lowerer<'_> {
    pub(super) fn input(&mut self, input: &ast::Input) {
        let name = &input.name;
        let role = role_named(&name.text);
        let ty = input.ty.as_ref().and_then(|ty| self.input_type(name, role, ty));
        let default = input.default.as_ref().map(|d| self.default(name, role, ty, d));
        let id = ty.map(|ty| {
            self.builder.input(Input {
                name: name.text.clone(),
                role,
                ty,
                default: default.flatten(),
                span: name.span,
            })
        });
        self.declare(name, Meaning::Input(id, role));
    }

    fn input_type(&mut self, name: &Ident, role: Role, ty: &TypeExpr) -> Option<Type> {
        let vector = |class| Some(Type::new(class, Kind::Vector));
        let (found, fits) = match ty.name.text.as_str() {
            "Query" => (vector(Class::PerQuery), role == Role::Query),
            "Key" => (vector(Class::PerKey), matches!(role, Role::Key | Role::Value)),
            "Value" => (vector(Class::PerKey), role == Role::Value),
            "Scalar" => (self.number_type(Class::Scalar, ty), role == Role::Extra),
            "PerHead" => (self.number_type(Class::PerHead, ty), role == Role::Extra),
            "PerQuery" => (self.number_type(Class::PerQuery, ty), role == Role::Extra),
            "PerKey" => {
                (self.number_type(Class::PerKey, ty), matches!(role, Role::Extra | Role::Score))
            }
            _ => {
                self.unknown_type(&ty.name);
                return None;
            }
        };
        let found = found?;
        if found.kind == Kind::Vector {
            self.vector_args(ty);
        }
        let integer_score = role == Role::Score && found.kind == Kind::I32;
        if !fits || integer_score {
            self.role_error(name, role, ty);
            return None;
        }
        Some(found)
    }

    fn role_error(&mut self, name: &Ident, role: Role, ty: &TypeExpr) {
        let diagnostic = if role == Role::Extra {
            let (only, what) = match ty.name.text.as_str() {
                "Query" => ("`q`", "queries are"),
                "Value" => ("`v`", "values are"),
                _ => ("`k` and `v`", "keys and values are"),
            };
            let message = format!("an input of type {} named `{}`", ty.name.text, name.text);
            Diagnostic::new(Code::InputRole, name.span, message)
                .label(format!("{what} named {only}"))
                .help("a kernel has one `q: Query<E, D>`, one `k: Key<E, D>`, one `v: Key<E, D>`")
        } else {
            let message = format!("`{}` has type {ty}", name.text);
            Diagnostic::new(Code::InputRole, ty.span, message)
                .label(format!(
                    "`{}` is declared as `{}: {}`",
                    name.text,
                    name.text,
                    declared(role)
                ))
                .help("q, k, v and u are the queries, keys, values and scores; take another name")
        };
        self.report(diagnostic);
    }

    fn number_type(&mut self, class: Class, ty: &TypeExpr) -> Option<Type> {
        match ty.args.as_slice() {
            [] => Some(Type::f32(class)),
            [TypeArg::Name(name)] if name.text == "f32" => Some(Type::f32(class)),
            [TypeArg::Name(name)] if name.text == "i32" => Some(Type::new(class, Kind::I32)),
            [first, ..] => {
                let span = first.span();
                let message = format!("{class} of something other than f32 or i32");
                self.report(
                    Diagnostic::new(Code::UnknownType, span, message)
                        .help(format!("write `{class}` for f32 and `{class}<i32>` for integers")),
                );
                None
            }
        }
    }

    fn unknown_type(&mut self, name: &Ident) {
        let message = format!("inputs cannot have type `{}`", name.text);
        let help = match name.text.as_str() {
            "Pair" | "Mask" => {
                "values for pairs of query and key exist only as expressions, never as tensors: \
                 compute them from PerQuery and PerKey inputs"
                    .to_owned()
            }
            other => match nearest(other, TYPES) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("types are {}", TYPES.join(", ")),
            },
        };
        self.report(Diagnostic::new(Code::UnknownType, name.span, message).help(help));
    }

    pub(super) fn output(&mut self, ty: &TypeExpr) {
        if ty.name.text != "Output" {
            let message = format!("a kernel returns `{}`", ty.name.text);
            self.report(
                Diagnostic::new(Code::InputRole, ty.name.span, message)
                    .label("expected `Output`")
                    .help("write `-> Output<E, D>`"),
            );
        }
        self.vector_args(ty);
    }

    /// `<E, D>` of a vector type: the same for all of them.
    fn vector_args(&mut self, ty: &TypeExpr) {
        let [elem, dim] = ty.args.as_slice() else {
            let message = format!("{} needs an element type and a head dimension", ty.name.text);
            self.report(
                Diagnostic::new(Code::ArgumentCount, ty.span, message)
                    .help(format!("write `{}<E, D>`", ty.name.text)),
            );
            return;
        };
        let found = match elem {
            TypeArg::Name(name) => self.elem_named(name),
            TypeArg::Int(int) => {
                let message = "an integer where an element type is needed";
                self.report(
                    Diagnostic::new(Code::UnknownType, int.span, message)
                        .help("element type first, head dimension second: `Query<f32, 64>`"),
                );
                None
            }
        };
        match (found, &self.elem) {
            (Some(found), None) => self.elem = Some((found, elem.span())),
            (Some(found), Some((known, at))) if found != *known => {
                let at = *at;
                self.mismatch("element type", elem.span(), at);
            }
            _ => {}
        }
        let known = self.head_dim;
        let found = match dim {
            TypeArg::Name(name) => match known {
                // Limits of the set were looked at where it was first named.
                Some((extent, _)) if self.is_param(&name.text, extent) => return,
                _ => self.named_extent(&name.text, name.span, Use::HeadDim),
            },
            TypeArg::Int(int) => self.literal_extent(int.value, int.span, Use::HeadDim),
        };
        match (found, known) {
            (Some(found), None) => self.head_dim = Some((found, dim.span())),
            (Some(found), Some((known, at))) if found != known => {
                self.mismatch("head dimension", dim.span(), at);
            }
            _ => {}
        }
    }

    fn is_param(&self, name: &str, extent: crate::ir::Extent) -> bool {
        match self.scope.look(name) {
            Some(Meaning::IntParam(Some(id))) => extent == crate::ir::Extent::Param(*id),
            _ => false,
        }
    }

    fn mismatch(&mut self, what: &str, span: Span, first: Span) {
        self.report(
            Diagnostic::new(Code::Mismatch, span, format!("two different {what}s"))
                .label("this one differs")
                .also(first, "from this one")
                .help(format!("q, k, v and the output share one {what}")),
        );
    }

    fn default(
        &mut self,
        name: &Ident,
        role: Role,
        ty: Option<Type>,
        expr: &ast::Expr,
    ) -> Option<ValueId> {
        if role != Role::Extra {
            let message = format!("a default for `{}`", name.text);
            self.report(
                Diagnostic::new(Code::Default, expr.span, message)
                    .help("q, k, v and u are always given; other inputs may have defaults"),
            );
            return None;
        }
        self.in_default = true;
        let value = self.value(expr);
        self.in_default = false;
        let Value::Node(v) = value else {
            if let Value::Set(_) = value {
                self.not_a_number(&value, expr.span);
            }
            return None;
        };
        let kind = self.builder.ty(v).kind;
        match (ty?.kind, kind) {
            (Kind::I32, Kind::I32) => Some(v),
            (Kind::I32, _) => {
                let message = format!("the default of `{}` is not an integer", name.text);
                self.report(
                    Diagnostic::new(Code::Default, expr.span, message)
                        .help("write an integer such as `0`, or an integer parameter"),
                );
                None
            }
            _ => self.as_f32(&value, expr.span),
        }
    }

    /// Reports q, k and v that are not declared.
    pub(super) fn missing_inputs(&mut self, kernel: &ast::Kernel) {
        for (name, role) in [("q", Role::Query), ("k", Role::Key), ("v", Role::Value)] {
            if self.scope.look(name).is_none() {
                let what = format!("`{name}: {}`", declared(role));
                let message = format!("kernel `{}` has no input {what}", kernel.name.text);
                self.report(
                    Diagnostic::new(Code::MissingInput, kernel.name.span, message)
                        .help(format!("declare {what} among the inputs")),
                );
            }
        }
    }

    /// An input as a value.
    pub(super) fn input_value(&mut self, id: crate::ir::InputId, span: Span) -> Value {
        self.push(Op::Input(id), span)
    }
}
