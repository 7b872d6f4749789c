//! The README may not drift from the repository: what it links to exists.

use std::path::Path;

/// Files whose links are checked.
const PAGES: [&str; 3] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];

/// Checks that every relative link of the pages names a file that exists.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut broken = Vec::new();
    for page in PAGES {
        let text = std::fs::read_to_string(root.join(page))
            .map_err(|error| format!("cannot read {page}: {error}"))?;
        for link in links(&text) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !root.join(file).exists() {
                broken.push(format!("{page} links to {link}, which does not exist"));
            }
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
}

/// Targets of `[text](target)` that are paths, not addresses.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://") && !target.contains(char::is_whitespace))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::links;

    #[test]
    fn only_paths_are_links_to_check() {
        let text = "[a](docs/x.md) ![b](p.svg) [c](https://example.org) [d](y.md#part)";
        assert_eq!(links(text), ["docs/x.md", "p.svg", "y.md#part"]);
    }
}
