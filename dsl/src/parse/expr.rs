//! Rust expressions to expressions of the language.

use super::Reader;
use super::cursor::{first_span, last_span};
use crate::Span;
use crate::ast::{Expr, ExprKind, Ident, Operator};
use crate::diagnostic::{Code, Diagnostic};
use crate::ir::{Binary, Compare, Logic};
use proc_macro2::{Span as TokenSpan, TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;

impl Reader {
    /// An expression that takes all of the tokens; `end` is what closes them.
    pub(super) fn expression(&mut self, tokens: &[TokenTree], end: TokenSpan) -> Expr {
        let stream: TokenStream = tokens.iter().cloned().collect();
        if let Some(hash) = attribute(stream.clone()) {
            let span = self.spans.add(hash);
            self.report(
                Diagnostic::new(Code::NotInLanguage, span, "an attribute is not in the language")
                    .help("remove it; attributes go on the invocation"),
            );
        }
        match syn::parse2::<syn::Expr>(stream) {
            Ok(expr) => self.convert(&expr),
            Err(error) => {
                let text = error.to_string();
                let at_end = text.starts_with("unexpected end of input");
                let token = if at_end { end } else { error.span() };
                let span = self.spans.add(token);
                let shown = text.strip_prefix("unexpected end of input, ").unwrap_or(&text);
                let mut diagnostic = Diagnostic::new(Code::Syntax, span, shown);
                if text.contains("comparison operators cannot be chained") {
                    diagnostic =
                        Diagnostic::new(Code::Precedence, span, "comparisons cannot be chained")
                            .help(PARENTHESES);
                }
                self.report(diagnostic);
                let first = tokens.first().map_or(end, first_span);
                let last = tokens.last().map_or(end, last_span);
                Expr { kind: ExprKind::Invalid, span: self.spans.add_range(first, last) }
            }
        }
    }

    fn convert(&mut self, expr: &syn::Expr) -> Expr {
        match expr {
            syn::Expr::Lit(lit) => self.literal(&lit.lit),
            syn::Expr::Path(path) => match path.path.get_ident() {
                Some(name) if path.qself.is_none() => {
                    let name = self.name(name);
                    Expr { kind: ExprKind::Name(name.text), span: name.span }
                }
                _ => self.outside(expr, "a path", "names of kernels have no `::`"),
            },
            syn::Expr::Paren(paren) => {
                let inner = self.convert(&paren.expr);
                let delimiters = paren.paren_token.span;
                let span = self.spans.add_range(delimiters.open(), delimiters.close());
                Expr { kind: ExprKind::Paren(Box::new(inner)), span }
            }
            // Invisible brackets keep their meaning.
            syn::Expr::Group(group) => {
                let inner = self.convert(&group.expr);
                Expr { span: inner.span, kind: ExprKind::Paren(Box::new(inner)) }
            }
            syn::Expr::Unary(unary) => self.unary(expr, unary),
            syn::Expr::Binary(binary) => self.binary(binary),
            syn::Expr::Call(call) => self.call(expr, call),
            syn::Expr::Field(field) => self.field(expr, field),
            syn::Expr::MethodCall(call) => self.method(expr, call),
            other => {
                let (what, help) = foreign(other);
                self.outside(other, what, help)
            }
        }
    }

    /// Reports something that the language does not have.
    fn outside(&mut self, expr: &impl ToTokens, what: &str, help: &str) -> Expr {
        let span = self.whole(expr);
        let message = format!("{what} is not in the language");
        self.report(Diagnostic::new(Code::NotInLanguage, span, message).help(help));
        Expr { kind: ExprKind::Invalid, span }
    }

    fn whole(&mut self, tokens: &impl ToTokens) -> Span {
        let all: Vec<TokenTree> = tokens.to_token_stream().into_iter().collect();
        match (all.first(), all.last()) {
            (Some(first), Some(last)) => self.spans.add_range(first_span(first), last_span(last)),
            _ => Span::NONE,
        }
    }

    fn literal(&mut self, lit: &syn::Lit) -> Expr {
        let span = self.spans.add(lit.span());
        let mut float = |digits: &str| {
            let value = digits.parse::<f32>().unwrap_or(f32::INFINITY);
            let zero = digits
                .split(['e', 'E'])
                .next()
                .is_some_and(|m| !m.contains(|c| matches!(c, '1'..='9')));
            if value.is_finite() && (value != 0.0 || zero) {
                return ExprKind::Float(value);
            }
            let message = format!("f32 cannot hold {digits}");
            self.report(Diagnostic::new(Code::FloatRange, span, message).help(
                "numbers of kernels are f32: at most 3.4028235e38, and 1e-45 or more unless zero",
            ));
            ExprKind::Invalid
        };
        let (suffix, kind) = match lit {
            syn::Lit::Float(lit) => (lit.suffix(), float(lit.base10_digits())),
            syn::Lit::Int(lit) if matches!(lit.suffix(), "f16" | "f32" | "f64") => {
                (lit.suffix(), float(lit.base10_digits()))
            }
            syn::Lit::Int(lit) => (
                lit.suffix(),
                match lit.base10_parse::<i64>() {
                    Ok(value) => ExprKind::Int(value),
                    Err(_) => {
                        let message = format!("the integer {lit} is too large");
                        self.report(Diagnostic::new(Code::IntRange, span, message).help(
                            "integers of the language have 32 bits; write a number as `1e10`",
                        ));
                        ExprKind::Invalid
                    }
                },
            ),
            other => {
                let help = "literals are numbers and integers: `0.5`, `4`";
                return self.outside(other, "this literal", help);
            }
        };
        if !suffix.is_empty() {
            let message = format!("the suffix `{suffix}` is not in the language");
            self.report(
                Diagnostic::new(Code::NotInLanguage, span, message).help(
                    "numbers are f32 and integers i32 by where they stand; remove the suffix",
                ),
            );
        }
        Expr { kind, span }
    }

    fn unary(&mut self, expr: &syn::Expr, unary: &syn::ExprUnary) -> Expr {
        let wrap: fn(Box<Expr>) -> ExprKind = match unary.op {
            syn::UnOp::Neg(_) => ExprKind::Neg,
            syn::UnOp::Not(_) => ExprKind::Not,
            _ => return self.outside(expr, "a dereference", "values are not references"),
        };
        let inner = self.convert(&unary.expr);
        let first = self.spans.add(unary.op.span());
        let span = self.spans.join(first, inner.span);
        Expr { kind: wrap(Box::new(inner)), span }
    }

    fn binary(&mut self, binary: &syn::ExprBinary) -> Expr {
        let left = self.convert(&binary.left);
        let right = self.convert(&binary.right);
        let span = self.spans.join(left.span, right.span);
        let at = self.whole(&binary.op);
        match operator(&binary.op) {
            Ok(op) => {
                let kind = ExprKind::Binary(op, at, Box::new(left), Box::new(right));
                Expr { kind, span }
            }
            Err(diagnostic) => {
                self.report(Diagnostic { primary: at, ..diagnostic });
                Expr { kind: ExprKind::Invalid, span }
            }
        }
    }

    fn call(&mut self, expr: &syn::Expr, call: &syn::ExprCall) -> Expr {
        let function = match &*call.func {
            syn::Expr::Path(path) if path.qself.is_none() => path.path.get_ident(),
            _ => None,
        };
        let Some(function) = function else {
            return self.outside(expr, "this call", "functions are called by their plain name");
        };
        let function = self.name(function);
        let (mut args, mut named) = (Vec::new(), Vec::new());
        for arg in &call.args {
            match arg {
                syn::Expr::Assign(assign) => {
                    let value = self.convert(&assign.right);
                    match &*assign.left {
                        syn::Expr::Path(path) if path.path.get_ident().is_some() => {
                            if let Some(name) = path.path.get_ident() {
                                named.push((self.name(name), value));
                            }
                        }
                        other => {
                            self.outside(other, "an assignment", "write `name = value`");
                        }
                    }
                }
                other => args.push(self.convert(other)),
            }
        }
        let close = self.spans.add(call.paren_token.span.close());
        let span = self.spans.join(function.span, close);
        Expr { kind: ExprKind::Call { function, args, named }, span }
    }

    fn field(&mut self, expr: &syn::Expr, field: &syn::ExprField) -> Expr {
        const COORDINATES: &str = "coordinates are q.pos, k.pos, q.head, k.head and batch";
        let base = match &*field.base {
            syn::Expr::Path(path) => path.path.get_ident(),
            _ => None,
        };
        let (Some(base), syn::Member::Named(member)) = (base, &field.member) else {
            return self.outside(expr, "a field", COORDINATES);
        };
        let (base, member): (Ident, Ident) = (self.name(base), self.name(member));
        let span = self.spans.join(base.span, member.span);
        Expr { kind: ExprKind::Field(base, member), span }
    }

    fn method(&mut self, expr: &syn::Expr, call: &syn::ExprMethodCall) -> Expr {
        self.convert(&call.receiver);
        for arg in &call.args {
            self.convert(arg);
        }
        let name = call.method.to_string();
        let help = match name.as_str() {
            "powi" | "powf" | "pow" => "write powers as products: `x * x`".to_owned(),
            _ => format!("functions are called with all operands in brackets: `{name}(x)`"),
        };
        self.outside(expr, "a method call", &help)
    }
}

pub(crate) const PARENTHESES: &str =
    "put each comparison in parentheses: `causal & (doc_q == doc_k)`";

/// The operator, or what to say of one that the language lacks.
fn operator(op: &syn::BinOp) -> Result<Operator, Diagnostic> {
    use Operator::{Arithmetic, Compare as C, Logic as L};
    Ok(match op {
        syn::BinOp::Add(_) => Arithmetic(Binary::Add),
        syn::BinOp::Sub(_) => Arithmetic(Binary::Sub),
        syn::BinOp::Mul(_) => Arithmetic(Binary::Mul),
        syn::BinOp::Div(_) => Arithmetic(Binary::Div),
        syn::BinOp::BitAnd(_) => L(Logic::And),
        syn::BinOp::BitOr(_) => L(Logic::Or),
        syn::BinOp::Eq(_) => C(Compare::Eq),
        syn::BinOp::Ne(_) => C(Compare::Ne),
        syn::BinOp::Lt(_) => C(Compare::Lt),
        syn::BinOp::Le(_) => C(Compare::Le),
        syn::BinOp::Gt(_) => C(Compare::Gt),
        syn::BinOp::Ge(_) => C(Compare::Ge),
        syn::BinOp::And(_) => return Err(logical("&&", "&")),
        syn::BinOp::Or(_) => return Err(logical("||", "|")),
        other => {
            let message =
                format!("the operator `{}` is not in the language", other.to_token_stream());
            return Err(Diagnostic::new(Code::NotInLanguage, Span::NONE, message)
                .help("operators are + - * /, == != < <= > >=, & | and !"));
        }
    })
}

fn logical(found: &str, meant: &str) -> Diagnostic {
    let message = format!("`{found}` is not in the language");
    Diagnostic::new(Code::LogicalOperator, Span::NONE, message)
        .label(format!("masks are combined with `{meant}`"))
        .help(format!(
            "write `{meant}` instead of `{found}`, with comparisons in parentheses: \
             `(a < b) {meant} (c < d)`"
        ))
}

/// The first `#`, in brackets too: the start of an attribute, which the parser would accept.
fn attribute(stream: TokenStream) -> Option<TokenSpan> {
    stream.into_iter().find_map(|tree| match tree {
        TokenTree::Punct(p) if p.as_char() == '#' => Some(p.span()),
        TokenTree::Group(group) => attribute(group.stream()),
        TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => None,
    })
}

/// What an expression outside the language is called, and what to write instead.
fn foreign(expr: &syn::Expr) -> (&'static str, &'static str) {
    use syn::Expr as E;
    match expr {
        E::If(_) => ("`if`", "write `select(mask, a, b)`"),
        E::Match(_) => ("`match`", "write `select(mask, a, b)`"),
        E::ForLoop(_) | E::While(_) | E::Loop(_) => {
            ("a loop", "sums over keys are `softmax` and `dot`; nothing else loops")
        }
        E::Cast(_) => ("a cast", "integers turn into f32 by themselves in arithmetic"),
        E::Macro(_) => ("a macro call", "write the expression itself"),
        E::Closure(_) => ("a closure", "name a value with `let`"),
        E::Block(_) | E::Unsafe(_) | E::Const(_) | E::Async(_) | E::TryBlock(_) => {
            ("a block", "every `let` stands in the kernel's body")
        }
        E::Return(_) => ("`return`", "the last expression is the result"),
        E::Break(_) | E::Continue(_) => ("a jump", "a kernel has no loops"),
        E::Assign(_) => {
            ("an assignment", "`==` compares; `let` gives a value a name, and values do not change")
        }
        E::Index(_) => ("indexing", "values are not indexed; they vary by head, query and key"),
        E::Array(_) | E::Repeat(_) | E::Tuple(_) | E::Struct(_) => {
            ("a compound value", "every value is one number, mask or vector")
        }
        E::Reference(_) | E::RawAddr(_) => ("a reference", "write the value without `&`"),
        E::Range(_) => ("a range", "compare with `<` and `<=`"),
        E::Try(_) | E::Await(_) => ("this postfix operator", "kernels cannot fail or wait"),
        E::Let(_) => ("a `let` inside an expression", "every `let` is a statement of its own"),
        E::Infer(_) => ("`_`", "write the value"),
        _ => ("this expression", "expressions are built of numbers, names, operators and calls"),
    }
}
