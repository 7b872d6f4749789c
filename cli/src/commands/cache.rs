//! `sparsek cache`: the cubins that were compiled before.

use crate::failure::{Failure, Outcome};
use crate::table::Table;
use crate::terminal::{Channel, bytes};
use clap::{Args, Subcommand};
use sparsek::cuda::cache::{Cache, Listed, State};
use std::time::SystemTime;

/// Arguments of `sparsek cache`.
#[derive(Args, Debug)]
#[command(after_help = "\
The cache is the folder SPARSEK_CACHE_DIR, or sparsek in the system's cache folder. An entry that
is damaged is compiled again by whoever needs it; `verify` finds such entries, `clear` removes all.

Examples:
  sparsek cache list
  sparsek cache clear")]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
enum What {
    /// List the entries
    List,
    /// Remove every entry
    Clear,
    /// Read every entry and check its digest; exit code 1 when one does not hold
    Verify,
}

pub(crate) fn run(args: &CacheArgs) -> Result<Outcome, Failure> {
    let cache = Cache::from_environment().ok_or_else(|| {
        Failure::new("this system has no place for a cache").help("set SPARSEK_CACHE_DIR")
    })?;
    let at = cache.entries().display();
    let failed = |e: std::io::Error| {
        Failure::new(format_args!("cannot read the cache {at}: {e}"))
            .help("set SPARSEK_CACHE_DIR to a folder of your own")
    };
    match args.what {
        What::List => {
            let listed = cache.list().map_err(failed)?;
            Channel::Stdout.write(&(summary(&cache, &listed) + &table(listed.iter())))?;
            Ok(Outcome::Done)
        }
        What::Clear => {
            let cleared = cache.clear().map_err(|e| {
                Failure::new(format_args!("cannot clear the cache {at}: {e}"))
                    .help("remove what is left by hand")
            })?;
            let size = bytes(cleared.bytes);
            Channel::Stdout
                .write(&format!("removed {} ({size}) from {at}\n", count(cleared.files)))?;
            Ok(Outcome::Done)
        }
        What::Verify => {
            let listed = cache.list().map_err(failed)?;
            let bad = || listed.iter().filter(|l| matches!(l.state, State::Bad { .. }));
            let good = bad().next().is_none();
            let verdict = match good {
                true => "every entry holds\n".to_owned(),
                false => format!("{} not hold:\n{}", do_not(bad().count()), table(bad())),
            };
            Channel::Stdout.write(&(summary(&cache, &listed) + &verdict))?;
            Ok(if good { Outcome::Done } else { Outcome::DoesNotHold })
        }
    }
}

fn summary(cache: &Cache, listed: &[Listed]) -> String {
    let size = listed.iter().map(|l| l.bytes).sum();
    format!("{}: {}, {}\n", cache.entries().display(), count(listed.len()), bytes(size))
}

fn count(n: usize) -> String {
    format!("{n} {}", if n == 1 { "entry" } else { "entries" })
}

fn do_not(n: usize) -> String {
    format!("{n} {}", if n == 1 { "does" } else { "do" })
}

fn table<'a>(listed: impl Iterator<Item = &'a Listed>) -> String {
    let mut table = Table::new(&["<entry", "size", "age", "<what"]);
    let mut any = false;
    for entry in listed {
        any = true;
        let what = match &entry.state {
            State::Good { label } => label.clone(),
            State::Bad { reason } => format!("damaged: {reason}"),
            State::Temporary => "being written, or left by a process that ended".to_owned(),
        };
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
        // A whole digest would fill the line.
        let name: String = name.chars().take(16).collect();
        table.row([name, bytes(entry.bytes), age(entry.modified), what]);
    }
    if any { table.render(2) } else { String::new() }
}

fn age(modified: Option<SystemTime>) -> String {
    let Some(modified) = modified else { return "-".to_owned() };
    // A clock that was set back makes files of the future.
    match modified.elapsed().map_or(0, |age| age.as_secs()) {
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}
