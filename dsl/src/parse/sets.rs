//! Sets of parameters: `in [bf16, f32]`, `in 1..=4096`, `in multiples_of(16) up to 256`.

use super::Reader;
use super::cursor::{Cursor, split, trees};
use super::header::{Read, Unreadable};
use crate::ast::{Ident, Int, Set, SetKind};
use crate::diagnostic::{Code, Diagnostic};
use proc_macro2::{Delimiter, Group};

const FORMS: &str = "a set is `[bf16, f16, f32]`, `[1, 2, 4]`, `1..=4096` or \
                     `multiples_of(16) up to 256`";

impl Reader {
    /// `in` and a set, up to the end of the piece.
    pub(super) fn set(&mut self, piece: &mut Cursor<'_>) -> Read<Set> {
        if piece.keyword("in").is_none() {
            let error = self.expected("`in` and a set", piece).help(FORMS);
            return self.fail(error);
        }
        let first = piece.span();
        let mut last = first;
        let kind = if let Some(list) = piece.group(Delimiter::Bracket) {
            last = list.span_close();
            self.list(list)?
        } else if piece.keyword("multiples_of").is_some() {
            self.multiples(piece, &mut last)?
        } else {
            self.range(piece, &mut last)?
        };
        if !piece.at_end() {
            let error = self.expected("`,` or `>` behind the set", piece).help(FORMS);
            return self.fail(error);
        }
        Ok(Set { kind, span: self.spans.add_range(first, last) })
    }

    fn list(&mut self, group: &Group) -> Read<SetKind> {
        let tokens = trees(group.stream());
        let mut elems: Vec<Ident> = Vec::new();
        let mut ints: Vec<Int> = Vec::new();
        for mut piece in split(&tokens, ',', group.span_close()) {
            match piece.ident() {
                Some(name) => elems.push(self.name(name)),
                None => ints.push(self.int(&mut piece, "an integer or an element type")?),
            }
            if !piece.at_end() {
                let error = self.expected("`,`", &piece).help(FORMS);
                return self.fail(error);
            }
        }
        match (elems.first(), ints.first()) {
            (Some(_), Some(int)) => {
                let error =
                    Diagnostic::new(Code::InvalidSet, int.span, "integers among element types")
                        .label("an integer")
                        .also(elems[0].span, "an element type")
                        .help(FORMS);
                self.fail(error)
            }
            (Some(_), None) => Ok(SetKind::Elems(elems)),
            _ => Ok(SetKind::List(ints)),
        }
    }

    fn multiples(&mut self, piece: &mut Cursor<'_>, last: &mut proc_macro2::Span) -> Read<SetKind> {
        let Some(group) = piece.group(Delimiter::Parenthesis) else {
            let error = self.expected("`(16)` behind `multiples_of`", piece).help(FORMS);
            return self.fail(error);
        };
        let tokens = trees(group.stream());
        let mut inside = Cursor::new(&tokens, group.span_close());
        let of = self.int(&mut inside, "an integer")?;
        if !inside.at_end() {
            let error = self.expected("`)`", &inside).help(FORMS);
            return self.fail(error);
        }
        for word in ["up", "to"] {
            if piece.keyword(word).is_none() {
                let error = self.expected(&format!("`{word}`"), piece).help(FORMS);
                return self.fail(error);
            }
        }
        *last = piece.rest().last().map_or(*last, super::cursor::last_span);
        let to = self.int(piece, "an integer")?;
        Ok(SetKind::Multiples(of, to))
    }

    fn range(&mut self, piece: &mut Cursor<'_>, last: &mut proc_macro2::Span) -> Read<SetKind> {
        let what = "a set";
        let start = piece.clone();
        let Ok(lo) = self.int(piece, what) else {
            if let Some(error) = self.diagnostics.last_mut() {
                error.help = Some(FORMS.to_owned());
            }
            return Err(Unreadable);
        };
        if !piece.puncts("..=") {
            let error = match piece.puncts("..") {
                true => {
                    Diagnostic::new(Code::InvalidSet, lo.span, "a range without its last value")
                        .help("ranges include both ends: write `1..=4096`")
                }
                false => self.expected("`..=`", piece).help(FORMS),
            };
            return self.fail(error);
        }
        *last = start.rest().last().map_or(*last, super::cursor::last_span);
        let hi = self.int(piece, "the last value of the range")?;
        Ok(SetKind::Range(lo, hi))
    }
}
