//! Whether the code generator's version tells what it must: a schedule was measured with one version's code,
//! and is used with that version's code alone. The version follows the templates by itself; a change of the
//! lowering raises it by hand, and is seen here when that was forgotten.

use serde_json::Value;

/// What says which instance a file shows, and how.
const SHOWN: [&str; 6] = ["kernel", "d", "k", "w", "arch", "schedule"];

/// A hash of code without its comments, of which the version takes no note either.
pub(crate) fn code(text: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for line in text.lines() {
        let code = line.split("//").next().unwrap_or_default().trim();
        if !code.is_empty() {
            hasher.update(code.as_bytes());
            hasher.update(b"\n");
        }
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Compares the manifest that is there with the one that replaces it.
///
/// # Errors
/// The file whose code changed while version, instance and schedule stayed.
pub(crate) fn check(old: &Value, new: &Value) -> Result<(), String> {
    if old["version"] != new["version"] || old["version"].is_null() {
        return Ok(());
    }
    let files = |manifest: &Value| manifest["files"].as_array().cloned().unwrap_or_default();
    let before = files(old);
    for file in files(new) {
        let same = |other: &&Value| {
            other["file"] == file["file"] && SHOWN.iter().all(|name| other[name] == file[name])
        };
        let changed = before.iter().find(same).is_some_and(|other| other["code"] != file["code"]);
        if changed {
            return Err(format!(
                "{} is other code under the same version {}, so that schedules measured with the old one would \
                 pass for the new one's: raise LOWERING in codegen/src/version.rs",
                file["file"].as_str().unwrap_or_default(),
                new["version"].as_str().unwrap_or_default()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(version: &str, schedule: &str, text: &str) -> Value {
        let file = json!({ "file": "cuda/sm90/forward_a.cu", "d": 64, "schedule": schedule, "code": code(text) });
        json!({ "version": version, "files": [file] })
    }

    #[test]
    fn other_code_needs_another_version() {
        let old = manifest("1-a", "kv 64", "x = 1;  // one\n");
        assert_eq!(check(&old, &old), Ok(()));
        let message = check(&old, &manifest("1-a", "kv 64", "x = 2;\n")).unwrap_err();
        assert!(
            message.contains("forward_a.cu") && message.contains("raise LOWERING"),
            "{message}"
        );
        assert_eq!(check(&old, &manifest("2-a", "kv 64", "x = 2;\n")), Ok(()));
        // Other schedules have other code, and comments are none.
        assert_eq!(check(&old, &manifest("1-a", "kv 32", "x = 2;\n")), Ok(()));
        assert_eq!(check(&old, &manifest("1-a", "kv 64", "// more\nx = 1;\n")), Ok(()));
        assert_eq!(check(&json!({}), &old), Ok(()));
    }
}
