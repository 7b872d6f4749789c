//! Compiled code kept between runs.
//!
//! An entry is a file named by its key, the hash of everything that decides the code: the source,
//! the target, the release of NVRTC and its options. It appears whole (temporary file, sync,
//! rename) and carries its key and a digest. What is missing, cut short, changed, from another
//! version or not an entry at all is a miss: the code is compiled again and the file replaced.
//! Processes need no lock: two that miss at the same time write the same entry twice.

use super::Resources;
use super::sealed::Sealed;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

const MAGIC: &[u8; 8] = b"SPARSEKC";

/// Changes with the format of entries.
const VERSION: u32 = 1;

/// Ending of entries.
const ENDING: &str = "entry";

/// Ending of files that are being written.
const TEMPORARY: &str = "tmp";

/// Folder of the entries in the cache folder.
const FOLDER: &str = "cubin";

/// The cache folder and the environment variable that chose it: `SPARSEK_CACHE_DIR`, else the
/// platform's place for caches. `None` when the system has no such place.
pub fn folder() -> Option<(PathBuf, &'static str)> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(folder) = var("SPARSEK_CACHE_DIR") {
        return Some((folder, "SPARSEK_CACHE_DIR"));
    }
    if cfg!(windows) {
        return Some((var("LOCALAPPDATA")?.join("sparsek").join("cache"), "LOCALAPPDATA"));
    }
    if cfg!(target_os = "macos") {
        return Some((var("HOME")?.join("Library/Caches/sparsek"), "HOME"));
    }
    if let Some(folder) = var("XDG_CACHE_HOME").filter(|p| p.is_absolute()) {
        return Some((folder.join("sparsek"), "XDG_CACHE_HOME"));
    }
    Some((var("HOME")?.join(".cache/sparsek"), "HOME"))
}

/// What an entry is found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of everything that decides the code. Which part a text stands in matters.
    pub fn new(parts: &[&str]) -> Key {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Key(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Compiled code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is, for people: module, kernel and target.
    pub label: String,
    /// Resources of every kernel in it.
    pub resources: Vec<Resources>,
    /// The code.
    pub cubin: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    label: String,
    resources: Vec<Resources>,
}

/// A file of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was written, where the file system says.
    pub modified: Option<SystemTime>,
    /// What it is.
    pub state: State,
}

/// What a file of the cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// An entry that would be used.
    Good {
        /// Module, kernel and target.
        label: String,
    },
    /// A file that is never used and would be replaced.
    Bad {
        /// Why.
        reason: String,
    },
    /// A file that a process is writing, or was when it ended.
    Temporary,
}

/// What [`Cache::clear`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Files.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

/// Compiled code in a folder, which need not exist.
#[derive(Clone, Debug)]
pub struct Cache {
    entries: PathBuf,
}

impl Cache {
    /// The cache in a folder.
    pub fn new(folder: &Path) -> Cache {
        Cache { entries: folder.join(FOLDER) }
    }

    /// The cache in the folder that the environment chooses; `None` where there is none.
    pub fn from_environment() -> Option<Cache> {
        folder().map(|(folder, _)| Cache::new(&folder))
    }

    /// The folder of the entries.
    pub fn entries(&self) -> &Path {
        &self.entries
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.entries.join(format!("{key}.{ENDING}"))
    }

    /// The entry of that key; `None` for anything but a whole one of this version.
    pub fn get(&self, key: &Key) -> Option<Entry> {
        open(&self.path(key), Some(key)).ok()
    }

    /// Keeps an entry. It replaces one of the same key.
    ///
    /// # Errors
    /// What the file system reports; nothing is left behind then, and an entry that was there
    /// stays.
    pub fn put(&self, key: &Key, entry: &Entry) -> io::Result<()> {
        self.put_with(key, entry, |file, bytes| file.write_all(bytes))
    }

    fn put_with(
        &self,
        key: &Key,
        entry: &Entry,
        write: impl FnOnce(&mut File, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let header = Header { label: entry.label.clone(), resources: entry.resources.clone() };
        let header = serde_json::to_string(&header).map_err(io::Error::other)?;
        let sealed = Sealed { key: key.0, header: &header, body: &entry.cubin };
        let bytes = sealed.to_bytes(MAGIC, VERSION);
        fs::create_dir_all(&self.entries)?;
        // Unique among threads and live processes; a dead process's file may be overwritten.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{key}.{}.{count}.{TEMPORARY}", std::process::id());
        let temporary = self.entries.join(name);
        let written = File::create(&temporary)
            .and_then(|mut file| write(&mut file, &bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temporary, self.path(key)));
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Every file of the cache, read and checked, the newest first. Empty when the folder does not
    /// exist.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        let mut all = Vec::new();
        for (path, metadata) in self.files()? {
            let state = match path.extension().is_some_and(|e| e == TEMPORARY) {
                true => State::Temporary,
                false => match open(&path, None) {
                    Ok(entry) => State::Good { label: entry.label },
                    Err(reason) => State::Bad { reason },
                },
            };
            all.push(Listed {
                path,
                bytes: metadata.len(),
                modified: metadata.modified().ok(),
                state,
            });
        }
        all.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| a.path.cmp(&b.path)));
        Ok(all)
    }

    /// Removes every entry, good or bad, and what is left of interrupted writes. Other files stay.
    ///
    /// # Errors
    /// A file that cannot be removed; one that another process removed meanwhile is no error.
    pub fn clear(&self) -> io::Result<Cleared> {
        let mut cleared = Cleared::default();
        for (path, metadata) in self.files()? {
            match fs::remove_file(&path) {
                Ok(()) => {
                    cleared.files += 1;
                    cleared.bytes += metadata.len();
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(cleared)
    }

    /// Files with an ending of this cache's.
    fn files(&self) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
        let folder = match fs::read_dir(&self.entries) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut files = Vec::new();
        for entry in folder {
            let path = entry?.path();
            let ours = path.extension().is_some_and(|e| e == ENDING || e == TEMPORARY);
            // A file may go while the folder is read.
            match fs::symlink_metadata(&path) {
                Ok(metadata) if ours && metadata.is_file() => files.push((path, metadata)),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(files)
    }
}

/// The entry in a file, or why there is none. The key must be the one asked for and the one that
/// the file is named by.
fn open(path: &Path, key: Option<&Key>) -> Result<Entry, String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = vec![0; MAGIC.len()];
    let start = file.read_exact(&mut bytes);
    // Not the whole of a large file that is something else.
    if start.is_err() || bytes != MAGIC {
        return Err("not written by sparsek".to_owned());
    }
    file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    let sealed = Sealed::open(&bytes, MAGIC, VERSION)?;
    let named = path.file_stem().and_then(|n| n.to_str());
    let found = Key(sealed.key);
    if key.is_some_and(|key| *key != found) || named != Some(found.to_string().as_str()) {
        return Err("an entry for something else".to_owned());
    }
    let header: Header = serde_json::from_str(sealed.header).map_err(|e| e.to_string())?;
    Ok(Entry { label: header.label, resources: header.resources, cubin: sealed.body.to_vec() })
}

#[cfg(test)]
mod tests;
