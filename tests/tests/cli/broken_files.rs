//! Input files that are not what they say: a message, exit code 2, no file.

use crate::binary::{files, run};
use crate::case::Case;

const LINE: &str =
    "run sparsek-value --input {}/in.safetensors --output {}/out.safetensors --backward";

/// Runs on a file of these bytes.
#[track_caller]
fn refused(bytes: &[u8], words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("in.safetensors"), bytes).unwrap();
    run(folder.path(), LINE).fails(2, &["in.safetensors"]).fails(2, words);
    assert_eq!(files(folder.path()), ["in.safetensors"]);
}

/// A file with that header and that many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn empty_and_garbage() {
    refused(b"", &["0 bytes"]);
    refused(b"abc", &["3 bytes"]);
    refused(&[0x5a; 4096], &["header"]);
    refused(&file("not json at all", 64), &["header"]);
    refused(&file("[1, 2]", 0), &["header"]);
    refused(&file("{}", 0), &["`q`"]);
    refused(&file(&"[".repeat(100_000), 0), &["header"]);
}

#[test]
fn cut_short_at_every_kind_of_place() {
    let whole = Case::sound().bytes();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for end in [1, 7, 8, 9, header / 2, header - 1, header, header + 1, whole.len() - 1] {
        refused(&whole[..end], &["not a usable safetensors file"]);
    }
    let mut longer = whole.clone();
    longer.push(0);
    refused(&longer, &["bytes"]);
}

#[test]
fn headers_that_lie() {
    let tensor = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let one = |t: String| format!("{{\"q\":{t}}}");
    let two = |a: String, b: String| format!("{{\"q\":{a},\"k\":{b}}}");
    // A header longer than any memory.
    let mut giant = file("{}", 8);
    giant[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&giant, &["header"]);
    giant[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    refused(&giant, &["header"]);
    // Offsets beyond the file, backwards, overlapping, with a hole, not of the shape.
    refused(&file(&one(tensor("F32", "[1,64,1,16]", 0, 4096)), 64), &["4096"]);
    refused(&file(&one(tensor("F32", "[1,1,1,16]", 64, 0)), 64), &["header"]);
    let a = || tensor("F32", "[1,1,1,16]", 0, 64);
    refused(&file(&two(a(), tensor("F32", "[1,1,1,16]", 32, 96)), 96), &["header"]);
    refused(&file(&two(a(), a()), 64), &["header"]);
    refused(&file(&two(a(), tensor("F32", "[1,1,1,16]", 128, 192)), 192), &["header"]);
    refused(&file(&one(tensor("F32", "[1,1,1,17]", 0, 64)), 64), &["header"]);
    // Shapes whose product overflows, negative sizes, unknown types.
    let huge = "[4294967296,4294967296,4294967296,16]";
    refused(&file(&one(tensor("F32", huge, 0, 64)), 64), &["header"]);
    refused(&file(&one(tensor("F32", "[-1,1,1,16]", 0, 64)), 64), &["header"]);
    refused(&file(&one(tensor("F7", "[1,1,1,16]", 0, 64)), 64), &["header"]);
    // Metadata that is not text.
    refused(&file("{\"__metadata__\":{\"k\":6}}", 0), &["header"]);
}

#[test]
fn a_case_with_no_positions() {
    let mut case = Case::sound();
    for (name, shape) in [("q", [1, 0, 4, 16]), ("k", [1, 0, 2, 16]), ("v", [1, 0, 2, 16])] {
        case.f32(name, &shape);
    }
    case.f32("u", &[1, 2, 0]).f32("d_o", &[1, 0, 4, 16]);
    refused(&case.bytes(), &["empty"]);
}

#[test]
fn inputs_that_are_not_files() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), LINE).fails(2, &["in.safetensors", "No such file", "--input"]);
    std::fs::create_dir(folder.path().join("in.safetensors")).unwrap();
    run(folder.path(), LINE).fails(2, &["in.safetensors", "a folder"]);
    let line = "run sparsek-value --input /dev/null --output {}/out.safetensors";
    run(folder.path(), line).fails(2, &["/dev/null", "not a regular file"]);
    assert_eq!(files(folder.path()), ["in.safetensors"]);
}
