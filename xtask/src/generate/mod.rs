//! `cargo xtask generate`
pub(crate) mod grid;
use std::collections::BTreeMap;
use std::path::Path;
pub(crate) fn proto(root: &Path) -> Result<(), String> {
    let kernels = grid::kernels(&root.join("kernels-generated/src"))?;
    let points = grid::points(&kernels)?;
    let t = std::time::Instant::now();
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut n = 0;
    for p in &points {
        let e = p.emit(&kernels[p.kernel], |problem| {
            sparsek_codegen::Schedule::choose(problem, &p.target).map_err(|e| e.to_string())
        })?;
        for (m, text) in &e.sources {
            n += 1;
            let mut out = String::new();
            let mut head = true;
            for line in text.lines() {
                if line.starts_with("struct Arguments") { head = false; }
                if head && line.starts_with("//") { continue; }
                if head && line.starts_with("constexpr") {
                    out.push_str(line.split('=').next().unwrap());
                } else { out.push_str(line); }
                out.push('\n');
            }
            let name = format!("{} {} {}", m.name(), kernels[p.kernel].name, p.label());
            groups.entry(out).or_default().push(name);
        }
    }
    eprintln!("{n} sources {:?}", t.elapsed());
    for (i, (text, names)) in groups.iter().enumerate() {
        let dir = Path::new("/tmp/proto");
        std::fs::write(dir.join(format!("{i:03}.cu")), text).unwrap();
        std::fs::write(dir.join(format!("{i:03}.txt")), names.join("\n")).unwrap();
        println!("{i:03} {:6} {:4} {}", text.len(), names.len(), names[0]);
    }
    Ok(())
}
