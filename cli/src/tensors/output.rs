//! Writing a safetensors file that appears whole or not at all.
//!
//! A regular file is written under a temporary name in its own folder and renamed once every byte
//! is on disk. A device or pipe is written directly: renaming over it would replace it.

use crate::failure::Failure;
use sparsek::{Data, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Elements converted at a time.
const CHUNK: usize = 1 << 14;

/// A place for results that was found usable before anything was computed.
#[derive(Debug)]
pub(crate) struct Destination {
    /// As it was given.
    given: PathBuf,
    kind: DestinationKind,
}

#[derive(Debug)]
enum DestinationKind {
    /// A regular file, which may not exist yet, behind any link, and its folder.
    Regular { path: PathBuf, folder: PathBuf },
    /// A device or pipe.
    Direct,
}

/// A file beside the output, which takes its name when it is whole and is removed otherwise.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".sparsek-").suffix(".part");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any newly created file: what the umask leaves of rw-rw-rw-.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

impl Destination {
    /// Checks that results can be written to `path`.
    pub(crate) fn new(path: &Path) -> Result<Destination, Failure> {
        let at = path.display();
        // What a process already has open is written through that descriptor, whatever is behind it.
        let descriptor = ["/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/self/fd/"]
            .iter()
            .any(|p| path.as_os_str().as_encoded_bytes().starts_with(p.as_bytes()));
        match std::fs::metadata(path) {
            Ok(kind) if kind.is_dir() => {
                return Err(Failure::new(format_args!("the output {at} is a folder"))
                    .help("give --output the name of a file"));
            }
            Ok(kind) if descriptor || !kind.is_file() => {
                let kind = DestinationKind::Direct;
                return Ok(Destination { given: path.to_owned(), kind });
            }
            _ => {}
        }
        // A link is followed, so that the file it names is replaced and the link stays.
        let given = path.to_owned();
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let slash = given.as_os_str().as_encoded_bytes().ends_with(b"/");
        if slash || path.file_name().is_none() {
            return Err(Failure::new(format_args!("the output {at} does not name a file"))
                .help("give --output the name of a file"));
        }
        if !folder.is_dir() {
            let what = if folder.exists() { "is a file" } else { "does not exist" };
            let folder = folder.display();
            return Err(Failure::new(format_args!(
                "cannot write {at}: the folder {folder} {what}"
            ))
            .help("create it first; nothing was computed"));
        }
        // Asked now, not after the work: a file is created and removed again.
        temporary(&folder).map_err(|error| {
            Failure::new(format_args!("cannot write {at}: {error}"))
                .help("give --output a folder that can be written to; nothing was computed")
        })?;
        Ok(Destination { given, kind: DestinationKind::Regular { path, folder } })
    }

    /// Refuses to replace the file that the command reads, called `what` in the message.
    pub(crate) fn apart_from(self, read: &Path, what: &str) -> Result<Destination, Failure> {
        let same = match (std::fs::canonicalize(read), std::fs::canonicalize(&self.given)) {
            (Ok(read), Ok(given)) => read == given,
            _ => false,
        };
        if same {
            let at = self.given.display();
            return Err(Failure::new(format_args!("the output {at} is the {what} file"))
                .help("choose another place for it; the file would be lost"));
        }
        Ok(self)
    }

    /// Whether results go to a device or pipe.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.kind, DestinationKind::Direct)
    }

    /// Where results go, as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.given
    }

    /// Writes what `body` writes, whole or not at all where the place allows it; the number of bytes.
    pub(crate) fn write(
        &self,
        body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<u64, Failure> {
        let failed = |error: io::Error| {
            let left = if self.is_direct() { "" } else { "; no file was left behind" };
            let failure =
                Failure::new(format_args!("cannot write {}: {error}{left}", self.path().display()));
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    failure.help("free some space or choose another place with --output")
                }
                _ => failure.help("choose a place that can be written"),
            }
        };
        match &self.kind {
            DestinationKind::Direct => {
                let file = File::options().write(true).open(&self.given).map_err(failed)?;
                let (_, written) = Self::fill(file, body).map_err(failed)?;
                Ok(written)
            }
            DestinationKind::Regular { path, folder } => {
                let (temporary, written) =
                    Self::fill(temporary(folder).map_err(failed)?, body).map_err(failed)?;
                temporary.as_file().sync_all().map_err(failed)?;
                temporary.persist(path).map_err(|e| failed(e.error))?;
                Ok(written)
            }
        }
    }

    fn fill<F: Write>(
        file: F,
        body: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<(F, u64)> {
        let mut out = Counted { inner: BufWriter::with_capacity(1 << 16, file), written: 0 };
        body(&mut out)?;
        let written = out.written;
        let file = out.inner.into_inner().map_err(|e| e.into_error())?;
        Ok((file, written))
    }
}

struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes tensors as safetensors: integers as I32, every other type as F32, converted a piece at
/// a time.
pub(crate) fn write_tensors(
    out: &mut dyn Write,
    metadata: &BTreeMap<String, String>,
    tensors: &[(String, &Tensor)],
) -> io::Result<()> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
    let mut offset = 0usize;
    for (name, tensor) in tensors {
        let dtype = match tensor.data() {
            Data::I32(_) => "I32",
            Data::F32(_) | Data::F16(_) | Data::Bf16(_) => "F32",
        };
        let end = offset + tensor.data().len() * 4;
        let entry = serde_json::json!({
            "dtype": dtype, "shape": tensor.shape(), "data_offsets": [offset, end],
        });
        header.insert(name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // Tensor data starts at a multiple of 8 bytes.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (_, tensor) in tensors {
        match tensor.data() {
            Data::F32(x) => out.write_all(bytemuck::cast_slice(x))?,
            Data::I32(x) => out.write_all(bytemuck::cast_slice(x))?,
            Data::F16(x) => write_as_f32(out, x, |v| v.to_f32())?,
            Data::Bf16(x) => write_as_f32(out, x, |v| v.to_f32())?,
        }
    }
    Ok(())
}

fn write_as_f32<T: Copy>(
    out: &mut dyn Write,
    values: &[T],
    convert: fn(T) -> f32,
) -> io::Result<()> {
    let mut buffer: Vec<f32> = Vec::with_capacity(CHUNK.min(values.len()));
    for part in values.chunks(CHUNK) {
        buffer.clear();
        buffer.extend(part.iter().map(|v| convert(*v)));
        out.write_all(bytemuck::cast_slice(&buffer))?;
    }
    Ok(())
}
