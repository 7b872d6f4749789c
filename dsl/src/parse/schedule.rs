//! The `schedule { .. }` block.

use super::Reader;
use super::cursor::{Cursor, split, trees};
use super::header::{Read, Unreadable};
use crate::ast::{Ident, Int, Knob, Section};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::ir::{KnobName, Pass};
use proc_macro2::{Delimiter, Group};

const FORM: &str = "a schedule is `schedule { forward { tile q in [64, 128], kv in [64]; warps in \
                    [4, 8]; stages in [2]; } }`";

impl Reader {
    pub(super) fn schedule(&mut self, block: &Group) -> Vec<Section> {
        let tokens = trees(block.stream());
        let mut cursor = Cursor::new(&tokens, block.span_close());
        let mut sections = Vec::new();
        while !cursor.at_end() {
            let Some(name) = cursor.ident() else {
                let error = self.expected("`forward` or `backward`", &cursor).help(FORM);
                self.report(error);
                break;
            };
            let name = self.name(name);
            let Some(knobs) = cursor.group(Delimiter::Brace) else {
                let error = self.expected("the pass's knobs in `{ }`", &cursor).help(FORM);
                self.report(error);
                break;
            };
            let knobs = self.knobs(knobs);
            match Pass::ALL.into_iter().find(|p| p.name() == name.text) {
                Some(pass) => sections.push(Section { pass, span: name.span, knobs }),
                None => self.unknown(&name, "pass", &Pass::ALL.map(Pass::name)),
            }
        }
        sections
    }

    fn unknown(&mut self, name: &Ident, what: &str, known: &[&'static str]) {
        let near = nearest(&name.text, known.iter().copied());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", known.join(", ")),
        };
        let message = format!("no {what} is named `{}`", name.text);
        self.report(Diagnostic::new(Code::ScheduleName, name.span, message).help(help));
    }

    fn knobs(&mut self, group: &Group) -> Vec<Knob> {
        let tokens = trees(group.stream());
        let mut knobs = Vec::new();
        for mut statement in split(&tokens, ';', group.span_close()) {
            if statement.at_end() {
                continue;
            }
            // What is wrong was reported; the next statement may be right.
            let _ = self.knob_statement(&mut statement, &mut knobs);
        }
        knobs
    }

    fn knob_statement(&mut self, statement: &mut Cursor<'_>, knobs: &mut Vec<Knob>) -> Read<()> {
        let Some(word) = statement.ident() else {
            let error = self.expected("a knob", statement).help(FORM);
            return self.fail(error);
        };
        let word = self.name(word);
        if word.text != "tile" {
            let known: Vec<&str> = ["tile"]
                .into_iter()
                .chain([KnobName::Warps, KnobName::Stages].map(KnobName::name))
                .collect();
            let found =
                [KnobName::Warps, KnobName::Stages].into_iter().find(|k| k.name() == word.text);
            let Some(name) = found else {
                self.unknown(&word, "knob", &known);
                return Err(Unreadable);
            };
            knobs.push(self.values(statement, name, word)?);
        } else {
            loop {
                let Some(axis) = statement.ident() else {
                    let error = self.expected("`q` or `kv`", statement).help(FORM);
                    return self.fail(error);
                };
                let axis = self.name(axis);
                let name = match axis.text.as_str() {
                    "q" => KnobName::TileQ,
                    "kv" => KnobName::TileKv,
                    _ => {
                        self.unknown(&axis, "tile", &["q", "kv"]);
                        return Err(Unreadable);
                    }
                };
                knobs.push(self.values(statement, name, axis)?);
                if !statement.punct(',') {
                    break;
                }
            }
        }
        if !statement.at_end() {
            let error = self.expected("`;`", statement).help(FORM);
            return self.fail(error);
        }
        Ok(())
    }

    fn values(&mut self, statement: &mut Cursor<'_>, name: KnobName, at: Ident) -> Read<Knob> {
        let group = match statement.keyword("in") {
            Some(_) => statement.group(Delimiter::Bracket),
            None => None,
        };
        let Some(group) = group else {
            let error = self.expected("`in [..]`", statement).help(FORM);
            return self.fail(error);
        };
        let tokens = trees(group.stream());
        let mut values: Vec<Int> = Vec::new();
        for mut piece in split(&tokens, ',', group.span_close()) {
            values.push(self.int(&mut piece, "an integer")?);
            if !piece.at_end() {
                let error = self.expected("`,`", &piece);
                return self.fail(error);
            }
        }
        let values_span = self.spans.add_range(group.span_open(), group.span_close());
        Ok(Knob { name, span: at.span, values, values_span })
    }
}
