//! Standard output and standard error: colour, notes, errors. Nothing here panics when the other end
//! of a pipe is closed.

use crate::failure::Failure;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Where a command's report goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Standard output, the usual place.
    Stdout,
    /// Standard error, when standard output carries the result itself.
    Stderr,
}

impl Channel {
    /// Whether to colour what is written there.
    pub(crate) fn coloured(self) -> bool {
        let terminal = match self {
            Channel::Stdout => io::stdout().is_terminal(),
            Channel::Stderr => io::stderr().is_terminal(),
        };
        terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
    }

    /// Writes text as it is. A reader that left (`| head`) is not an error, and changes nothing
    /// about how the command ends.
    pub(crate) fn write(self, text: &str) -> Result<(), Failure> {
        self.write_bytes(text.as_bytes())
    }

    /// Writes bytes, as [`Channel::write`] does text.
    pub(crate) fn write_bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Channel::Stdout => {
                let mut out = io::stdout().lock();
                match out.write_all(bytes).and_then(|()| out.flush()) {
                    Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                        Err(Failure::new(format_args!("cannot write to standard output: {e}"))
                            .help("send it to a place that takes it"))
                    }
                    _ => Ok(()),
                }
            }
            Channel::Stderr => {
                say(bytes);
                Ok(())
            }
        }
    }
}

/// Writes to standard error; when that is closed there is nobody to tell.
fn say(bytes: &[u8]) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(bytes);
    let _ = err.flush();
}

/// Text in a terminal style (`1` bold, `31` red, …) where `coloured`.
pub(crate) fn styled(text: &str, style: &str, coloured: bool) -> String {
    if coloured { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A remark on standard error.
pub(crate) fn note(text: impl std::fmt::Display) {
    let head = styled("note", "1;36", Channel::Stderr.coloured());
    say(format!("{head}: {text}\n").as_bytes());
}

/// A failure and what to do about it, on standard error.
pub(crate) fn error(failure: &Failure) {
    let coloured = Channel::Stderr.coloured();
    let mut text = format!("{}: {failure}\n", styled("error", "1;31", coloured));
    if let Some(help) = failure.advice() {
        text.push_str(&format!("{}: {help}\n", styled("help", "1;32", coloured)));
    }
    say(text.as_bytes());
}

/// Rendered diagnostics, on standard error.
pub(crate) fn diagnostics(text: &str) {
    say(text.as_bytes());
}

/// A duration as a person reads it.
pub(crate) fn duration(d: Duration) -> String {
    let ms = d.as_secs_f64() * 1e3;
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}

/// An integer with thousands separated.
pub(crate) fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number of bytes as a person reads it.
pub(crate) fn bytes(n: u64) -> String {
    match n {
        n if n < 10_000 => format!("{n} bytes"),
        n if n < 1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        n if n < 1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        n => format!("{:.1} GB", n as f64 / 1e9),
    }
}

/// The members of `known` closest to `wanted`, nearest first, at most three.
pub(crate) fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut close: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, name)| {
            *distance * 2 <= name.len().max(wanted.len()) || name.contains(wanted)
        })
        .collect();
    close.sort();
    close.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_024), "1,024");
        assert_eq!(thousands(65_536_000), "65,536,000");
    }

    #[test]
    fn nearest_names_come_first() {
        let known = ["sparsek-value", "sparsek-key", "sparsek-hard"];
        assert_eq!(nearest("sparsek-valeu", known)[0], "sparsek-value");
        assert_eq!(nearest("hard", known), ["sparsek-hard"]);
        assert!(nearest("matmul", known).is_empty());
    }
}
