//! How a command ends: done, a check that did not hold, or a failure with a message.

use std::fmt::{self, Display};
use std::process::ExitCode;

/// A command that ran to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything asked for was done.
    Done,
    /// A check ran and did not hold.
    DoesNotHold,
    /// The interrupt key ended it early.
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        match outcome {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::DoesNotHold => ExitCode::from(1),
            // 128 and the number of SIGINT, as shells have it.
            Outcome::Interrupted => ExitCode::from(130),
        }
    }
}

/// Bad usage or bad input: exit code 2.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    help: Option<String>,
    kind: FailureKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FailureKind {
    /// The message is printed.
    Plain,
    /// Everything was said already.
    Reported,
}

impl Failure {
    /// A failure that says what is wrong and where.
    pub(crate) fn new(message: impl Display) -> Failure {
        Failure { message: message.to_string(), help: None, kind: FailureKind::Plain }
    }

    /// With what to do about it.
    pub(crate) fn help(mut self, help: impl Display) -> Failure {
        self.help = Some(help.to_string());
        self
    }

    /// A failure whose messages are on standard error already.
    pub(crate) fn reported() -> Failure {
        Failure { message: String::new(), help: None, kind: FailureKind::Reported }
    }

    /// Says what is to be said and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        match self.kind {
            FailureKind::Reported => {}
            FailureKind::Plain => crate::terminal::error(self),
        }
        ExitCode::from(2)
    }

    /// What to do about it.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
