//! A kernel's body: `let` statements and the result.

use super::Reader;
use super::cursor::{Cursor, first_span, is_punct, last_span, trees};
use super::header::{Read, Unreadable};
use crate::ast::{Kernel, Let};
use crate::diagnostic::{Code, Diagnostic};
use proc_macro2::{Delimiter, Group, Span as TokenSpan, TokenTree};

/// One statement's tokens and how it ended.
struct Statement<'t> {
    tokens: &'t [TokenTree],
    end: TokenSpan,
    semicolon: bool,
}

impl Reader {
    pub(super) fn body(&mut self, kernel: &mut Kernel, body: &Group) {
        let tokens = trees(body.stream());
        let statements = self.statements(&tokens, body.span_close());
        let count = statements.len();
        for (n, statement) in statements.into_iter().enumerate() {
            let mut cursor = Cursor::new(statement.tokens, statement.end);
            if cursor.keyword("let").is_some() {
                if let Ok(binding) = self.binding(cursor) {
                    kernel.lets.push(binding);
                }
            } else {
                self.result(kernel, &statement, n + 1 == count);
            }
        }
        if kernel.result.is_none() && self.ends_in_let(&tokens) {
            let span = self.spans.add(body.span_close());
            self.report(
                Diagnostic::new(Code::ResultShape, span, "the kernel has no result")
                    .label("the result is missing before this")
                    .help("the last expression is the result, without a semicolon: `dot(p, v)`"),
            );
        }
    }

    /// Whether no statement but `let`s was seen: otherwise what is wrong was said already.
    fn ends_in_let(&self, tokens: &[TokenTree]) -> bool {
        let mut last = tokens;
        if let [rest @ .., semicolon] = last
            && is_punct(Some(semicolon), ';')
        {
            last = rest;
        }
        let start = last.iter().rposition(|t| is_punct(Some(t), ';')).map_or(0, |n| n + 1);
        let is_let = |t: &TokenTree| matches!(t, TokenTree::Ident(word) if word == "let");
        last.is_empty() || last[start..].iter().any(is_let)
    }

    /// Splits the body at semicolons, and before a `let` whose predecessor lacks one. Loops and
    /// conditionals are reported and left out.
    fn statements<'t>(&mut self, tokens: &'t [TokenTree], end: TokenSpan) -> Vec<Statement<'t>> {
        let mut out = Vec::new();
        let mut start = 0;
        let mut n = 0;
        while n < tokens.len() {
            let word = match &tokens[n] {
                TokenTree::Ident(word) => word.to_string(),
                _ => String::new(),
            };
            if is_punct(Some(&tokens[n]), ';') {
                let span = tokens[n].span();
                out.push(Statement { tokens: &tokens[start..n], end: span, semicolon: true });
                start = n + 1;
            } else if n == start && ["for", "while", "loop", "if", "match"].contains(&&*word) {
                n = self.control_flow(tokens, n, &word);
                start = n;
                continue;
            } else if word == "let" && n > start {
                let last = self.spans.add(last_span(&tokens[n - 1]));
                let error = Diagnostic::new(Code::Syntax, last, "missing `;` before `let`")
                    .label("expected `;` behind this");
                self.report(error);
                let end = first_span(&tokens[n]);
                out.push(Statement { tokens: &tokens[start..n], end, semicolon: true });
                start = n;
            }
            n += 1;
        }
        if start < tokens.len() {
            out.push(Statement { tokens: &tokens[start..], end, semicolon: false });
        }
        out.retain(|s| !s.tokens.is_empty());
        out
    }

    /// Reports a loop or conditional that starts a statement and returns where it ends.
    fn control_flow(&mut self, tokens: &[TokenTree], start: usize, word: &str) -> usize {
        let span = self.spans.add(tokens[start].span());
        let (what, help) = match word {
            "if" => ("`if`", "write `select(mask, a, b)`; both values are expressions"),
            "match" => ("`match`", "write `select(mask, a, b)`; both values are expressions"),
            _ => (
                "a loop",
                "a kernel says what each query and key computes; sums over keys are `softmax` \
                 and `dot`",
            ),
        };
        self.report(
            Diagnostic::new(Code::NotInLanguage, span, format!("{what} is not in the language"))
                .help(help),
        );
        let is_brace =
            |t: &TokenTree| matches!(t, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace);
        let is_else = |t: Option<&TokenTree>| matches!(t, Some(TokenTree::Ident(w)) if w == "else");
        let mut n = start;
        loop {
            while n < tokens.len() && !is_brace(&tokens[n]) && !is_punct(Some(&tokens[n]), ';') {
                n += 1;
            }
            n = (n + 1).min(tokens.len());
            if !is_else(tokens.get(n)) {
                break;
            }
        }
        // A semicolon behind the block belongs to it.
        if is_punct(tokens.get(n), ';') { n + 1 } else { n }
    }

    fn binding(&mut self, mut cursor: Cursor<'_>) -> Read<Let> {
        if let Some(word) = cursor.keyword("mut") {
            let span = self.spans.add(word.span());
            self.report(
                Diagnostic::new(Code::NotInLanguage, span, "`mut` is not in the language")
                    .help("values do not change; give the new value a name of its own"),
            );
        }
        let Some(name) = cursor.ident() else {
            let error =
                self.expected("a name", &cursor).help("a statement is `let name = expression;`");
            return self.fail(error);
        };
        let name = self.name(name);
        if cursor.peek_punct(':') {
            let span = self.spans.add(cursor.span());
            self.report(
                Diagnostic::new(Code::NotInLanguage, span, "a type on a `let`")
                    .help("types follow from the expression; remove this one"),
            );
            while !cursor.at_end() && !cursor.peek_punct('=') {
                cursor.next();
            }
        }
        if !cursor.punct('=') {
            let error =
                self.expected("`=`", &cursor).help("a statement is `let name = expression;`");
            return self.fail(error);
        }
        if cursor.at_end() {
            let error = self.expected("an expression", &cursor);
            return self.fail(error);
        }
        Ok(Let { name, value: self.expression(cursor.rest(), cursor.end()) })
    }

    /// A statement that is not a `let`: the result, or an error.
    fn result(&mut self, kernel: &mut Kernel, statement: &Statement<'_>, last: bool) {
        if self.assignment(statement).is_err() {
            return;
        }
        let value = self.expression(statement.tokens, statement.end);
        if !last {
            let error = Diagnostic::new(Code::NotInLanguage, value.span, "a value without a name")
                .label("nothing uses this")
                .help("a statement is `let name = expression;`, and the result stands last");
            self.report(error);
            return;
        }
        if statement.semicolon {
            let span = self.spans.add(statement.end);
            self.report(
                Diagnostic::new(Code::ResultShape, span, "the result ends with a semicolon")
                    .label("remove this")
                    .help("the last expression is the kernel's result, without a semicolon"),
            );
        }
        kernel.result = Some(value);
    }

    /// Reports `name = value` and `name += value`.
    fn assignment(&mut self, statement: &Statement<'_>) -> Read<()> {
        let [TokenTree::Ident(name), rest @ ..] = statement.tokens else { return Ok(()) };
        let puncts: Vec<char> = rest
            .iter()
            .map_while(|t| match t {
                TokenTree::Punct(p) => Some(p.as_char()),
                _ => None,
            })
            .collect();
        let compound = |c: &char| "+-*/%&|^".contains(*c);
        let assigns = match puncts.as_slice() {
            ['='] => true,
            ['=', second, ..] => *second != '=',
            [first, '=', ..] => compound(first),
            _ => false,
        };
        if !assigns {
            return Ok(());
        }
        let last = statement.tokens.last().map_or(name.span(), last_span);
        let span = self.spans.add_range(name.span(), last);
        self.report(
            Diagnostic::new(Code::NotInLanguage, span, "an assignment is not in the language")
                .help("values do not change: `let` gives the new value a name of its own"),
        );
        Err(Unreadable)
    }
}
