//! A process that uses the GPU or compiles: started, asked, killed when it hangs, started again.
//!
//! A fault of a kernel makes a context useless and a kernel that does not end cannot be taken back, so
//! neither may happen in the process that keeps the results.

use super::protocol::{Reply, Request};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process that closed a pipe may take to end by itself.
const ENDING: Duration = Duration::from_secs(1);

/// Lines of its standard error that are kept.
const SAID: usize = 8;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Lost {
    /// The process ended, or answered something else; what it said last.
    Died(String),
    /// No answer in that time; it was killed.
    Hung(Duration),
}

/// A process that answers requests. It runs while it is needed.
pub(crate) struct Process {
    /// Makes the command that starts it.
    command: Box<dyn Fn() -> std::io::Result<Command> + Send>,
    running: Option<Running>,
    /// How often it was started.
    pub(crate) starts: usize,
}

struct Running {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// A process that `command` starts when it is first asked something.
    pub(crate) fn new(command: impl Fn() -> std::io::Result<Command> + Send + 'static) -> Process {
        Process { command: Box::new(command), running: None, starts: 0 }
    }

    /// Whether it runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Sends a request and waits for the answer. A process that gives none is ended; the next request starts
    /// another.
    pub(crate) fn ask(&mut self, request: &Request, patience: Duration) -> Result<Reply, Lost> {
        let answer = self.try_ask(request, patience);
        if !matches!(answer, Ok(ref reply) if !matches!(reply, Reply::Fault(_))) {
            self.end();
        }
        answer
    }

    fn try_ask(&mut self, request: &Request, patience: Duration) -> Result<Reply, Lost> {
        let died = |e: &dyn std::fmt::Display| Lost::Died(e.to_string());
        if self.running.is_none() {
            self.running = Some(self.start().map_err(|e| died(&e))?);
            self.starts += 1;
        }
        let Some(running) = &mut self.running else {
            return Err(Lost::Died("it did not start".to_owned()));
        };
        let mut line = serde_json::to_string(request).map_err(|e| died(&e))?;
        line.push('\n');
        let sent = running.input.write_all(line.as_bytes()).and_then(|()| running.input.flush());
        if sent.is_err() {
            return Err(Lost::Died(running.last_words()));
        }
        match running.lines.recv_timeout(patience) {
            Ok(line) => serde_json::from_str(&line)
                .map_err(|e| Lost::Died(format!("it answered `{line}`, which is no answer: {e}"))),
            Err(RecvTimeoutError::Timeout) => Err(Lost::Hung(patience)),
            Err(RecvTimeoutError::Disconnected) => Err(Lost::Died(running.last_words())),
        }
    }

    fn start(&self) -> std::io::Result<Running> {
        let mut command = (self.command)()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let pipe = || std::io::Error::other("a pipe of the process is missing");
        let input = child.stdin.take().ok_or_else(pipe)?;
        let output = child.stdout.take().ok_or_else(pipe)?;
        let errors = child.stderr.take().ok_or_else(pipe)?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // Ends with the process, or when nobody listens any more.
            for line in text_lines(output) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let kept = said.clone();
        thread::spawn(move || {
            for line in text_lines(errors) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_back(line);
                if kept.len() > SAID {
                    kept.pop_front();
                }
            }
        });
        Ok(Running { child, input, lines, said })
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        if let Some(mut running) = self.running.take() {
            // It may have ended by itself; it is waited for in any case, so that it leaves nothing behind.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// The lines of a pipe up to its end, whatever bytes they hold.
fn text_lines(pipe: impl Read) -> impl Iterator<Item = String> {
    let lines = BufReader::new(pipe).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).into_owned())
}

impl Running {
    /// How it ended and what it said.
    fn last_words(&mut self) -> String {
        // It may have closed its pipe and live on.
        let until = Instant::now() + ENDING;
        let ended = loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(10)),
                Ok(None) => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    break "it had stopped answering".to_owned();
                }
                Ok(Some(status)) => break status.to_string(),
                Err(e) => break e.to_string(),
            }
        };
        // What it said may still be read, by a thread that has a share of it until then.
        while Arc::strong_count(&self.said) > 1 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        match said.is_empty() {
            true => format!("the process ended ({ended})"),
            false => format!("the process ended ({ended}): {}", said.join(" ")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
