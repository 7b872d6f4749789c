//! Whether the code generator's version tells what it must: a schedule was measured with one version's code,
//! and is used with that version's code alone. The version follows the templates by itself; a change of the
//! lowering raises it by hand, and is seen here when that was forgotten.

use serde_json::Value;
use std::collections::BTreeMap;

/// What names an instance, with how it is scheduled, and the modules of each.
const INSTANCE: [&str; 6] = ["kernel", "d", "k", "w", "arch", "schedule"];
const MODULES: [&str; 3] = ["plan", "forward", "backward"];

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
/// An instance whose code changed while version and schedule stayed.
pub(crate) fn check(old: &Value, new: &Value) -> Result<(), String> {
    if old["version"] != new["version"] || old["version"].is_null() {
        return Ok(());
    }
    let instances = |manifest: &Value| -> BTreeMap<String, Value> {
        let all = manifest["instances"].as_array().cloned().unwrap_or_default();
        let key = |i: &Value| INSTANCE.map(|name| i[name].to_string()).join(" ");
        all.into_iter().map(|instance| (key(&instance), instance)).collect()
    };
    let before = instances(old);
    for (key, instance) in instances(new) {
        let Some(other) = before.get(&key) else { continue };
        let code = |i: &Value, module: &str| i[module]["code"].clone();
        let changed = |module: &&&str| {
            let (was, is) = (code(other, module), code(&instance, module));
            !was.is_null() && was != is
        };
        if let Some(module) = MODULES.iter().find(changed) {
            return Err(format!(
                "the {module} of {} with D {}, k {}, w {} for {} is other code under the same version {}, so that \
                 schedules measured with the old one would pass for the new one's: raise LOWERING in \
                 codegen/src/version.rs",
                instance["kernel"].as_str().unwrap_or_default(),
                instance["d"],
                instance["k"],
                instance["w"],
                instance["arch"].as_str().unwrap_or_default(),
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
        let forward = json!({ "file": "forward.cu", "code": code(text) });
        let instance =
            json!({ "kernel": "some", "d": 64, "schedule": schedule, "forward": forward });
        json!({ "version": version, "instances": [instance] })
    }

    #[test]
    fn other_code_needs_another_version() {
        let old = manifest("1-a", "kv 64", "x = 1;  // one\n");
        assert_eq!(check(&old, &old), Ok(()));
        let message = check(&old, &manifest("1-a", "kv 64", "x = 2;\n")).unwrap_err();
        assert!(
            message.contains("forward of some") && message.contains("raise LOWERING"),
            "{message}"
        );
        assert_eq!(check(&old, &manifest("2-a", "kv 64", "x = 2;\n")), Ok(()));
        // Other schedules have other code, and comments are none.
        assert_eq!(check(&old, &manifest("1-a", "kv 32", "x = 2;\n")), Ok(()));
        assert_eq!(check(&old, &manifest("1-a", "kv 64", "// more\nx = 1;\n")), Ok(()));
        assert_eq!(check(&json!({}), &old), Ok(()));
    }
}
