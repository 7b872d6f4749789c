//! The user's own tuned schedules: a folder with one readable file for each key.
//!
//! A file is written under a lock of the folder, to a temporary file that is synced and renamed: what
//! readers see is whole, and of two processes that write one key both are in the file. A file that cannot
//! be read is never written over: it is moved aside when something new is to be kept in its place.

use super::{Entry, Key};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Changes whenever an older reader would misread a file.
const VERSION: u64 = 1;

/// Ending of files that are being written.
const TEMPORARY: &str = "tmp";

/// Name of the file whose lock writers hold.
const LOCK: &str = ".lock";

/// The folder of tuned schedules and the environment variable that chose it: `SPARSEK_TUNED_DIR`, else the
/// platform's place for data. `None` when the system has no such place.
pub fn folder() -> Option<(PathBuf, &'static str)> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(folder) = var("SPARSEK_TUNED_DIR") {
        return Some((folder, "SPARSEK_TUNED_DIR"));
    }
    if cfg!(windows) {
        return Some((var("LOCALAPPDATA")?.join("sparsek").join("tuned"), "LOCALAPPDATA"));
    }
    if cfg!(target_os = "macos") {
        return Some((var("HOME")?.join("Library/Application Support/sparsek/tuned"), "HOME"));
    }
    if let Some(folder) = var("XDG_DATA_HOME").filter(|p| p.is_absolute()) {
        return Some((folder.join("sparsek/tuned"), "XDG_DATA_HOME"));
    }
    Some((var("HOME")?.join(".local/share/sparsek/tuned"), "HOME"))
}

/// A file of the store that is not used.
#[derive(Debug, Error)]
#[error(
    "tuned schedules in {} are not used: {reason}; move the file away, or tune again (it is then kept \
     beside the new one)",
    .path.display()
)]
pub struct Broken {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// What [`Store::merge`] did.
#[derive(Clone, Debug)]
pub struct Merged {
    /// What is kept now.
    pub entry: Entry,
    /// Where a file that could not be read went.
    pub moved: Option<PathBuf>,
}

/// Tuned schedules in a folder, which need not exist.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

#[derive(Serialize)]
struct Out<'a> {
    version: u64,
    #[serde(flatten)]
    entry: &'a Entry,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

impl Store {
    /// The store in a folder.
    pub fn new(folder: &Path) -> Store {
        Store { folder: folder.to_owned() }
    }

    /// The store in the folder that the environment chooses; `None` where there is none.
    pub fn from_environment() -> Option<Store> {
        folder().map(|(folder, _)| Store { folder })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a key.
    pub fn path(&self, key: &Key) -> PathBuf {
        let gpu: String =
            key.gpu.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let Key { elem, d, k, w, group, sequence, .. } = key;
        let hash = &key.hash().to_hex()[..16];
        let gpu = gpu.to_lowercase();
        self.folder.join(format!("{elem}-d{d}-k{k}-w{w}-g{group}-n{sequence}-{gpu}-{hash}.json"))
    }

    /// What is kept of a key.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, Broken> {
        let path = self.path(key);
        match read(&path)? {
            Some(entry) if entry.key != *key => {
                Err(Broken { path, reason: "it is of another key".to_owned() })
            }
            other => Ok(other),
        }
    }

    /// Every file, in the order of names; broken ones too.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn list(&self) -> io::Result<Vec<(PathBuf, Result<Entry, Broken>)>> {
        let folder = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut paths = Vec::new();
        for file in folder {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "json") {
                paths.push(path);
            }
        }
        paths.sort();
        let entries = paths.into_iter().filter_map(|path| match read(&path) {
            Ok(Some(entry)) => Some((path, Ok(entry))),
            // Removed while the folder was read.
            Ok(None) => None,
            Err(broken) => Some((path, Err(broken))),
        });
        Ok(entries.collect())
    }

    /// Tries to write: takes the lock, writes a file and removes it.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn probe(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let _lock = self.lock()?;
        let path = self.folder.join("probe").with_extension(TEMPORARY);
        File::create(&path)?.write_all(b"sparsek")?;
        fs::remove_file(&path)
    }

    /// Adds an entry to what is kept of its key ([`Entry::merge`]).
    ///
    /// # Errors
    /// What the file system reports; what was kept stays then.
    pub fn merge(&self, entry: &Entry) -> io::Result<Merged> {
        fs::create_dir_all(&self.folder)?;
        let _lock = self.lock()?;
        let path = self.path(&entry.key);
        let (kept, moved) = match self.get(&entry.key) {
            Ok(kept) => (kept, None),
            Err(_) => (None, Some(move_aside(&path)?)),
        };
        let entry = match kept {
            Some(kept) => kept.merge(entry),
            None => entry.clone(),
        };
        self.write(&path, &entry)?;
        Ok(Merged { entry, moved })
    }

    /// Removes what is kept of a key; whether there was something.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn remove(&self, key: &Key) -> io::Result<bool> {
        if !self.folder.is_dir() {
            return Ok(false);
        }
        let _lock = self.lock()?;
        match fs::remove_file(self.path(key)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Held until it is dropped, or the process ends.
    fn lock(&self) -> io::Result<File> {
        let path = self.folder.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn write(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let out = Out { version: VERSION, entry };
        let mut text = serde_json::to_string_pretty(&out).map_err(io::Error::other)?;
        text.push('\n');
        let temporary = path.with_extension(TEMPORARY);
        let written = File::create(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

fn read(path: &Path) -> Result<Option<Entry>, Broken> {
    let broken = |reason: String| Broken { path: path.to_owned(), reason };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(broken(format!("the file cannot be read ({e})"))),
    };
    let damaged = |e: serde_json::Error| broken(format!("the file is damaged ({e})"));
    let Version { version } = serde_json::from_str(&text).map_err(damaged)?;
    if version != VERSION {
        return Err(broken(format!(
            "the file has version {version}, and this build reads {VERSION}"
        )));
    }
    serde_json::from_str(&text).map(Some).map_err(damaged)
}

/// Renames a file to the first free `NAME.broken-1`, `-2`, …
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for n in 1..=10_000u32 {
        let aside = path.with_file_name(format!("{name}.broken-{n}"));
        if !aside.exists() {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other(format!("there are too many broken files beside {}", path.display())))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
