//! What is wrong with a kernel: one type for every rule, shown by the command line as an annotated
//! source snippet ([`render`]) and by the macro as a compile error at the same position.

mod code;
mod nearest;
mod render;

pub use code::Code;
pub(crate) use nearest::nearest;
pub use render::render;

use crate::Span;

/// One thing that is wrong, at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which rule.
    pub code: Code,
    /// What is wrong, in one line without a full stop.
    pub message: String,
    /// Where.
    pub primary: Span,
    /// What stands there; may be empty.
    pub label: String,
    /// Other positions that matter, with what stands there.
    pub secondary: Vec<(Span, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without label, help and other positions.
    pub fn new(code: Code, primary: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            message: message.into(),
            primary,
            label: String::new(),
            secondary: Vec::new(),
            help: None,
        }
    }

    /// With what stands at the primary position.
    pub fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }

    /// With another position.
    pub fn also(mut self, span: Span, label: impl Into<String>) -> Diagnostic {
        if span != Span::NONE {
            self.secondary.push((span, label.into()));
        }
        self
    }

    /// With what to do.
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }

    /// With what to do, if that is known.
    pub fn help_if(mut self, help: Option<String>) -> Diagnostic {
        self.help = help.or(self.help);
        self
    }

    /// Message, label and help as lines of text, for where no snippet can be drawn.
    pub fn text(&self) -> String {
        let mut out = self.message.clone();
        if !self.label.is_empty() && !self.message.contains(&self.label) {
            out.push_str("\n  ");
            out.push_str(&self.label);
        }
        if let Some(help) = &self.help {
            out.push_str("\nhelp: ");
            out.push_str(help);
        }
        out
    }
}
