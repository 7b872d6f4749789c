//! A kernel up to its body: documentation, visibility, name, parameters, inputs, output.

use super::Reader;
use super::cursor::{Cursor, first_span, split, trees};
use crate::Span;
use crate::ast::{Input, Int, Kernel, Param, Tuned, TypeArg, TypeExpr};
use crate::diagnostic::{Code, Diagnostic};
use proc_macro2::{Delimiter, Literal, TokenStream, TokenTree};

/// What could not be read, after it was reported.
pub(crate) struct Unreadable;

/// A part, or that it was reported.
pub(crate) type Read<T> = Result<T, Unreadable>;

const FORM: &str = "a kernel is written `pub kernel Name<E in [bf16, f32], ..>(q: Query<E, D>, ..) \
                    -> Output<E, D> { .. }`";

impl Reader {
    /// Every kernel of an invocation.
    pub(super) fn kernels(&mut self, mut cursor: Cursor<'_>) -> Vec<Kernel> {
        let mut kernels = Vec::new();
        while !cursor.at_end() {
            match self.kernel(&mut cursor) {
                Ok(kernel) => kernels.push(kernel),
                Err(Unreadable) => skip_kernel(&mut cursor),
            }
        }
        kernels
    }

    fn kernel(&mut self, cursor: &mut Cursor<'_>) -> Read<Kernel> {
        let before = self.diagnostics.len();
        let (docs, tuned) = self.attributes(cursor, Place::Kernel);
        let visibility = visibility(cursor);
        if cursor.keyword("kernel").is_none() {
            let error = self.expected("`kernel`", cursor).help(FORM);
            return self.fail(error);
        }
        let Some(name) = cursor.ident() else {
            let error = self.expected("the kernel's name", cursor).help(FORM);
            return self.fail(error);
        };
        let name = self.name(name);
        let mut kernel = Kernel {
            docs,
            tuned,
            visibility,
            name,
            params: Vec::new(),
            inputs: Vec::new(),
            output: None,
            lets: Vec::new(),
            result: None,
            schedule: Vec::new(),
            complete: false,
        };
        match self.signature_and_body(&mut kernel, cursor) {
            Ok(()) => kernel.complete = self.diagnostics.len() == before,
            Err(Unreadable) => skip_kernel(cursor),
        }
        Ok(kernel)
    }

    fn signature_and_body(&mut self, kernel: &mut Kernel, cursor: &mut Cursor<'_>) -> Read<()> {
        if cursor.punct('<') {
            self.params(kernel, cursor)?;
        }
        let Some(inputs) = cursor.group(Delimiter::Parenthesis) else {
            let error = self.expected("the inputs in `( )`", cursor).help(FORM);
            return self.fail(error);
        };
        let tokens = trees(inputs.stream());
        for piece in split_inputs(&tokens, Cursor::new(&[], inputs.span_close())) {
            if let Ok(input) = self.input(piece) {
                kernel.inputs.push(input);
            }
        }
        kernel.output = Some(self.output(cursor)?);
        let Some(body) = cursor.group(Delimiter::Brace) else {
            let error = self.expected("the kernel's body in `{ }`", cursor).help(FORM);
            return self.fail(error);
        };
        self.body(kernel, body);
        if cursor.peek_ident().is_some_and(|i| i == "schedule") {
            cursor.next();
            let Some(block) = cursor.group(Delimiter::Brace) else {
                let error = self.expected("the schedule in `{ }`", cursor);
                return self.fail(error);
            };
            kernel.schedule = self.schedule(block);
        }
        Ok(())
    }

    /// Reports, and says so.
    pub(super) fn fail<T>(&mut self, diagnostic: Diagnostic) -> Read<T> {
        self.report(diagnostic);
        Err(Unreadable)
    }

    /// Documentation comments, and on a kernel the file of its tuned schedules; other attributes are
    /// reported.
    fn attributes(
        &mut self,
        cursor: &mut Cursor<'_>,
        place: Place,
    ) -> (Vec<String>, Option<Tuned>) {
        let (mut docs, mut tuned) = (Vec::new(), None);
        while cursor.peek_punct('#') {
            let hash = cursor.span();
            cursor.next();
            let Some(attribute) = cursor.group(Delimiter::Bracket) else { continue };
            if let Some(text) = doc_line(attribute.stream()) {
                docs.extend(text.lines().map(|l| strip_blank(l).to_owned()));
                continue;
            }
            let span = self.spans.add_range(hash, attribute.span_close());
            let of_kernel = (place == Place::Kernel).then(|| tuned_file(attribute.stream()));
            match of_kernel.flatten() {
                Some(_) if tuned.is_some() => self.report(
                    Diagnostic::new(Code::DuplicateName, span, "two files of tuned schedules")
                        .label("the second")
                        .help("`sparsek tune export` writes several kernels into one file"),
                ),
                Some((path, literal)) => {
                    let span = self.spans.add(literal.span());
                    tuned = Some(Tuned { path, literal, span });
                }
                None => self.report(place.refuses(span)),
            }
        }
        (docs, tuned)
    }

    fn params(&mut self, kernel: &mut Kernel, cursor: &mut Cursor<'_>) -> Read<()> {
        let start = cursor.rest();
        let is_close = |t: &TokenTree| matches!(t, TokenTree::Punct(p) if p.as_char() == '>');
        let inside = start.iter().take_while(|t| {
            !is_close(t) && !matches!(t, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace)
        });
        let length = inside.count();
        for _ in 0..length {
            cursor.next();
        }
        let end = cursor.span();
        if !cursor.punct('>') {
            let error = self.expected("`>` behind the parameters", cursor).help(FORM);
            return self.fail(error);
        }
        for mut piece in split(&start[..length], ',', end) {
            let Some(name) = piece.ident() else {
                let error = self
                    .expected("a parameter such as `K in 1..=4096`", &piece)
                    .help("every parameter has a name and the set of its values");
                self.report(error);
                continue;
            };
            let name = self.name(name);
            let set = self.set(&mut piece).ok();
            kernel.params.push(Param { name, set });
        }
        Ok(())
    }

    fn input(&mut self, mut piece: Cursor<'_>) -> Read<Input> {
        let (docs, _) = self.attributes(&mut piece, Place::Input);
        let Some(name) = piece.ident() else {
            let error = self
                .expected("an input such as `bias: PerKey`", &piece)
                .help("an input has a name, a type and perhaps a default: `slope: PerHead = 0.0`");
            return self.fail(error);
        };
        let name = self.name(name);
        let mut input = Input { docs, name, ty: None, default: None };
        if !piece.punct(':') {
            let error = self
                .expected("`:` and the input's type", &piece)
                .help("types are Query<E, D>, Key<E, D>, Scalar, PerHead, PerQuery and PerKey");
            self.report(error);
            return Ok(input);
        }
        let Ok(ty) = self.type_expr(&mut piece) else { return Ok(input) };
        input.ty = Some(ty);
        if piece.punct('=') {
            input.default = Some(self.expression(piece.rest(), piece.end()));
        } else if !piece.at_end() {
            let error = self.expected("`,` or a default (`= value`)", &piece);
            self.report(error);
        }
        Ok(input)
    }

    fn output(&mut self, cursor: &mut Cursor<'_>) -> Read<TypeExpr> {
        if !cursor.puncts("->") {
            let error = self.expected("`-> Output<E, D>`", cursor).help(FORM);
            return self.fail(error);
        }
        self.type_expr(cursor)
    }

    /// `Name` or `Name<arg, arg>`.
    fn type_expr(&mut self, cursor: &mut Cursor<'_>) -> Read<TypeExpr> {
        let Some(name) = cursor.ident() else {
            let error = self
                .expected("a type", cursor)
                .help("types are Query<E, D>, Key<E, D>, Scalar, PerHead, PerQuery and PerKey");
            return self.fail(error);
        };
        let mut ty =
            TypeExpr { name: self.name(name), args: Vec::new(), span: self.spans.add(name.span()) };
        if !cursor.punct('<') {
            return Ok(ty);
        }
        loop {
            if let Some(name) = cursor.ident() {
                ty.args.push(TypeArg::Name(self.name(name)));
            } else {
                let what = "a parameter, an element type or an integer";
                ty.args.push(TypeArg::Int(self.int(cursor, what)?));
            }
            let last = cursor.span();
            if cursor.punct('>') {
                ty.span = self.spans.add_range(name.span(), last);
                return Ok(ty);
            }
            if !cursor.punct(',') {
                let error = self.expected("`,` or `>`", cursor);
                return self.fail(error);
            }
        }
    }

    /// An integer, perhaps negative.
    pub(super) fn int(&mut self, cursor: &mut Cursor<'_>, what: &str) -> Read<Int> {
        let first = cursor.span();
        let mut ahead = cursor.clone();
        let negative = ahead.punct('-');
        let Some(TokenTree::Literal(literal)) = ahead.next() else {
            let error = self.expected(what, cursor);
            return self.fail(error);
        };
        let span = self.spans.add_range(first, literal.span());
        match self.integer(&literal.to_string(), span) {
            Some(value) => {
                *cursor = ahead;
                Ok(Int { value: if negative { -value } else { value }, span })
            }
            None => {
                let error = self.expected(what, cursor);
                self.fail(error)
            }
        }
    }

    /// The value of an integer literal; one too large is reported and counts as 1. `None` when the
    /// literal is not an integer.
    fn integer(&mut self, text: &str, span: Span) -> Option<i64> {
        let literal = syn::parse_str::<syn::LitInt>(text).ok()?;
        if !literal.suffix().is_empty() {
            return None;
        }
        Some(literal.base10_parse::<i64>().unwrap_or_else(|_| {
            self.report(
                Diagnostic::new(Code::IntRange, span, format!("the integer {text} is too large"))
                    .help("integers of the language have 32 bits"),
            );
            1
        }))
    }
}

/// What an attribute stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Kernel,
    Input,
}

impl Place {
    /// The report of an attribute that cannot stand there.
    fn refuses(self, span: Span) -> Diagnostic {
        let (message, label) = match self {
            Place::Kernel => (
                "an attribute on a kernel",
                "only documentation comments and `#[tuned(\"file.json\")]` can stand here",
            ),
            Place::Input => {
                ("an attribute on an input", "only documentation comments can stand here")
            }
        };
        Diagnostic::new(Code::NotInLanguage, span, message)
            .label(label)
            .help("put attributes on the invocation, or remove this one")
    }
}

/// The path of `tuned("path")`, and its literal.
fn tuned_file(attribute: TokenStream) -> Option<(String, Literal)> {
    let trees = trees(attribute);
    let mut cursor = Cursor::new(&trees, proc_macro2::Span::call_site());
    cursor.keyword("tuned")?;
    let inside = cursor.group(Delimiter::Parenthesis)?;
    let mut inside = inside.stream().into_iter();
    match (inside.next()?, inside.next(), cursor.at_end()) {
        (TokenTree::Literal(literal), None, true) => {
            let path = syn::parse_str::<syn::LitStr>(&literal.to_string()).ok()?;
            Some((path.value(), literal))
        }
        _ => None,
    }
}

/// The text of `doc = "text"`.
fn doc_line(attribute: TokenStream) -> Option<String> {
    let trees = trees(attribute);
    let mut cursor = Cursor::new(&trees, proc_macro2::Span::call_site());
    cursor.keyword("doc")?;
    if !cursor.punct('=') {
        return None;
    }
    match cursor.next()? {
        TokenTree::Literal(text) => {
            syn::parse_str::<syn::LitStr>(&text.to_string()).ok().map(|s| s.value())
        }
        _ => None,
    }
    // An empty comment is one empty line.
    .map(|text| if text.is_empty() { "\n".to_owned() } else { text })
}

fn strip_blank(line: &str) -> &str {
    line.strip_prefix(' ').unwrap_or(line)
}

fn visibility(cursor: &mut Cursor<'_>) -> TokenStream {
    if let Some(TokenTree::Group(group)) = cursor.peek()
        && group.delimiter() == Delimiter::None
    {
        cursor.next();
        return group.stream();
    }
    let Some(word) = cursor.keyword("pub") else { return TokenStream::new() };
    let mut out = TokenStream::from(TokenTree::Ident(word.clone()));
    if let Some(scope) = cursor.group(Delimiter::Parenthesis) {
        out.extend([TokenTree::Group(scope.clone())]);
    }
    out
}

/// Splits the inputs at commas that are not between the angle brackets of a type.
fn split_inputs<'t>(trees: &'t [TokenTree], end: Cursor<'_>) -> Vec<Cursor<'t>> {
    let mut pieces = Vec::new();
    let (mut start, mut angle, mut in_type) = (0, 0usize, true);
    for (n, tree) in trees.iter().enumerate() {
        let TokenTree::Punct(p) = tree else { continue };
        match p.as_char() {
            '<' if in_type => angle += 1,
            '>' if in_type => angle = angle.saturating_sub(1),
            '=' if angle == 0 => in_type = false,
            // A colon behind the next word starts another input even when a `>` is missing.
            ',' if angle == 0 || starts_input(&trees[n + 1..]) => {
                pieces.push(Cursor::new(&trees[start..n], first_span(tree)));
                (start, angle, in_type) = (n + 1, 0, true);
            }
            _ => {}
        }
    }
    if start < trees.len() {
        pieces.push(Cursor::new(&trees[start..], end.end()));
    }
    pieces
}

fn starts_input(trees: &[TokenTree]) -> bool {
    matches!(trees, [TokenTree::Ident(_), TokenTree::Punct(p), ..] if p.as_char() == ':')
}

/// Goes behind the next block, and the schedule behind that, to where a kernel may start. Always
/// reads something unless at the end.
fn skip_kernel(cursor: &mut Cursor<'_>) {
    while let Some(tree) = cursor.next() {
        if matches!(tree, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace) {
            if cursor.keyword("schedule").is_some() {
                cursor.group(Delimiter::Brace);
            }
            return;
        }
        let next_kernel = cursor.peek_ident().is_some_and(|i| i == "kernel" || i == "pub");
        if next_kernel && !matches!(tree, TokenTree::Ident(word) if word == "pub") {
            return;
        }
    }
}
