//! Candidates compiled side by side, by processes: NVRTC compiles one text at a time in each. One that ends
//! in the compiler costs only its own text.

use super::process::{Lost, Process};
use super::protocol::{Reply, Request, Source};
use sparsek::cuda::cache::Key;
use sparsek_codegen::tune::Trouble;
use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Most processes: each takes some hundred megabytes.
const MOST: usize = 32;

/// How long a text may take: they take seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Most characters of a message, which may be a compiler's whole log.
const SHORT: usize = 600;

/// Processes that compile.
pub(crate) struct Compilers {
    processes: Vec<Process>,
    /// What became of texts that were compiled ahead.
    known: HashMap<Key, Result<(), Trouble>>,
    /// How long a text is waited for.
    pub(crate) patience: Duration,
}

impl Compilers {
    /// One for each core up to 32, which `command` starts when it is needed.
    pub(crate) fn new(
        command: impl Fn() -> std::io::Result<Command> + Clone + Send + 'static,
    ) -> Compilers {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let processes = (0..cores.min(MOST)).map(|_| Process::new(command.clone())).collect();
        Compilers { processes, known: HashMap::new(), patience: PATIENCE }
    }

    /// How many texts are compiled at a time.
    pub(crate) fn count(&self) -> usize {
        self.processes.len()
    }

    /// Compiles texts into the cache; a result for each, in order. Those that were compiled ahead are known.
    pub(crate) fn compile(&mut self, sources: &[Source]) -> Vec<Result<(), Trouble>> {
        let known: Vec<_> =
            sources.iter().map(|source| self.known.get(&key(source)).cloned()).collect();
        let wanted: Vec<&Source> =
            sources.iter().zip(&known).filter(|(_, k)| k.is_none()).map(|(s, _)| s).collect();
        let mut results = self.run(&wanted, &|| true, &|_| ()).into_iter();
        let none = || Err(Trouble::Fault("it was not compiled".to_owned()));
        let mut result = |known: Option<_>| known.or_else(|| results.next().flatten());
        known.into_iter().map(|known| result(known).unwrap_or_else(none)).collect()
    }

    /// Compiles texts that will be asked for, and remembers what became of each, so that one that fails does
    /// so where it is asked for. None is begun once `go_on` says no; `done` is told how many are finished.
    pub(crate) fn ahead(
        &mut self,
        sources: &[Source],
        go_on: &(dyn Fn() -> bool + Sync),
        done: &(dyn Fn(usize) + Sync),
    ) {
        let mut seen = HashSet::new();
        let is_new = |source: &&Source| {
            let key = key(source);
            !self.known.contains_key(&key) && seen.insert(key)
        };
        let wanted: Vec<&Source> = sources.iter().filter(is_new).collect();
        let results = self.run(&wanted, go_on, done);
        for (source, result) in wanted.into_iter().zip(results) {
            self.known.extend(result.map(|result| (key(source), result)));
        }
    }

    /// A result for each text, in order; none of those that were not begun.
    fn run(
        &mut self,
        sources: &[&Source],
        go_on: &(dyn Fn() -> bool + Sync),
        done: &(dyn Fn(usize) + Sync),
    ) -> Vec<Option<Result<(), Trouble>>> {
        let (next, finished) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results = Mutex::new(vec![None; sources.len()]);
        let patience = self.patience;
        std::thread::scope(|scope| {
            for process in self.processes.iter_mut().take(sources.len()) {
                let (next, finished, results) = (&next, &finished, &results);
                scope.spawn(move || {
                    while go_on() {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(source) = sources.get(at) else { break };
                        let result = one(process, source, patience);
                        if let Ok(mut results) = results.lock() {
                            results[at] = Some(result);
                        }
                        done(finished.fetch_add(1, Ordering::Relaxed) + 1);
                    }
                });
            }
        });
        results.into_inner().unwrap_or_default()
    }
}

/// What a text is known by.
fn key(source: &Source) -> Key {
    Key::new(&[&source.text, &source.target])
}

fn one(process: &mut Process, source: &Source, patience: Duration) -> Result<(), Trouble> {
    match process.ask(&Request::Compile(source.clone()), patience) {
        Ok(Reply::Right) => Ok(()),
        Ok(Reply::Failed(reason)) => Err(Trouble::Failed(short(&reason))),
        Ok(Reply::Fault(reason)) | Err(Lost::Died(reason)) => Err(Trouble::Fault(short(&reason))),
        Ok(other) => {
            process.end();
            Err(Trouble::Fault(format!("an answer to another question: {other:?}")))
        }
        Err(Lost::Hung(patience)) => Err(Trouble::Timeout(patience.as_secs_f64())),
    }
}

/// The start of a message.
pub(crate) fn short(text: &str) -> String {
    let mut line: String = text.chars().take(SHORT).collect();
    if line.len() < text.len() {
        line.push('…');
    }
    line
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        let (name, target) = ("forward of Some".to_owned(), "sm_90a".to_owned());
        Source { name, text: text.to_owned(), target }
    }

    #[test]
    fn what_ends_in_the_compiler_costs_only_itself() {
        let script = r#"while read -r line; do
            case "$line" in
                *crashes*) echo ptxas >&2; kill -9 $$;;
                *hangs*) sleep 30;;
                *wrong*) echo '{"failed":"line 3: no such thing"}';;
                *) echo '"right"';;
            esac
        done"#;
        let mut compilers = Compilers::new(move || {
            let mut command = Command::new("sh");
            command.arg("-c").arg(script);
            Ok(command)
        });
        compilers.patience = Duration::from_secs(4);
        let texts = ["one", "crashes", "two", "wrong", "hangs", "three", "four"];
        let sources: Vec<Source> = texts.iter().map(|text| source(text)).collect();
        let results = compilers.compile(&sources);
        let is_right: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(is_right, [true, false, true, false, false, true, true]);
        assert!(matches!(&results[1], Err(Trouble::Fault(why)) if why.contains("ptxas")));
        assert_eq!(results[3], Err(Trouble::Failed("line 3: no such thing".to_owned())));
        assert!(matches!(results[4], Err(Trouble::Timeout(_))));
        assert_eq!(compilers.compile(&sources[..1]), [Ok(())]);
        assert!(compilers.compile(&[]).is_empty());
    }

    #[test]
    fn what_was_compiled_ahead_is_not_compiled_again() {
        // Answers every text once: what is asked twice would end the process.
        let script = r#"n=0; while read -r line; do
            case "$line" in
                *wrong*) echo '{"failed":"line 3: no such thing"}';;
                *again*) n=$((n+1)); [ $n -gt 1 ] && exit 1; echo '"right"';;
                *) echo '"right"';;
            esac
        done"#;
        let mut compilers = Compilers::new(move || {
            let mut command = Command::new("sh");
            command.arg("-c").arg(script);
            Ok(command)
        });
        // One process, so that it counts for all.
        compilers.processes.truncate(1);
        let sources: Vec<Source> = ["again", "wrong", "again", "one"].map(source).to_vec();
        let most = AtomicUsize::new(0);
        compilers.ahead(&sources, &|| true, &|n| {
            most.fetch_max(n, Ordering::Relaxed);
        });
        assert_eq!(most.load(Ordering::Relaxed), 3);
        let results = compilers.compile(&[source("new"), source("wrong"), source("again")]);
        let wrong = Err(Trouble::Failed("line 3: no such thing".to_owned()));
        assert_eq!(results, [Ok(()), wrong, Ok(())]);
        // What was not begun is compiled when it is asked for.
        compilers.ahead(&[source("later")], &|| false, &|_| panic!("nothing is begun"));
        assert_eq!(compilers.compile(&[source("later")]), [Ok(())]);
    }
}
