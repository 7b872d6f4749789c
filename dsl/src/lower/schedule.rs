//! The schedule block: nothing twice, nothing empty, only values that a knob can have.

use super::Lowerer;
use crate::Span;
use crate::ast;
use crate::diagnostic::{Code, Diagnostic};
use crate::ir::{Knob, ScheduleBlock, Section};

impl Lowerer<'_> {
    pub(super) fn schedule(&mut self, sections: &[ast::Section]) -> ScheduleBlock {
        let mut block = ScheduleBlock::default();
        for (n, section) in sections.iter().enumerate() {
            if let Some(first) = sections[..n].iter().find(|s| s.pass == section.pass) {
                let what = format!("the pass `{}`", section.pass.name());
                self.twice_in_schedule(&what, section.span, first.span);
            }
            for (n, knob) in section.knobs.iter().enumerate() {
                if let Some(first) = section.knobs[..n].iter().find(|k| k.name == knob.name) {
                    let what = format!("`{}`", knob.name.name());
                    self.twice_in_schedule(&what, knob.span, first.span);
                }
                self.knob(knob);
            }
            let knobs = section.knobs.iter().map(|knob| Knob {
                name: knob.name,
                values: knob.values.iter().map(|v| v.value).collect(),
            });
            block.sections.push(Section { pass: section.pass, knobs: knobs.collect() });
        }
        block
    }

    fn twice_in_schedule(&mut self, what: &str, span: Span, first: Span) {
        let message = format!("the schedule gives {what} twice");
        self.report(
            Diagnostic::new(Code::ScheduleDuplicate, span, message)
                .label("the second")
                .also(first, "the first")
                .help("keep one of them, with the values of both if both are meant"),
        );
    }

    fn knob(&mut self, knob: &ast::Knob) {
        let name = knob.name.name();
        if knob.values.is_empty() {
            let message = format!("the schedule leaves no value for `{name}`");
            self.report(
                Diagnostic::new(Code::ScheduleEmpty, knob.values_span, message)
                    .help("list its values, or leave the knob out to have the compiler's own"),
            );
        }
        for (n, value) in knob.values.iter().enumerate() {
            if let Some(first) = knob.values[..n].iter().find(|v| v.value == value.value) {
                let what = format!("the value {} of `{name}`", value.value);
                self.twice_in_schedule(&what, value.span, first.span);
                continue;
            }
            let (allowed, rule) = knob.name.allows(value.value);
            if !allowed {
                let message = format!("`{name}` cannot be {}", value.value);
                self.report(
                    Diagnostic::new(Code::ScheduleValue, value.span, message)
                        .help(format!("allowed: {rule}")),
                );
            }
        }
    }
}
