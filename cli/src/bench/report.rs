//! Times as a table and as JSON.

use super::{Limits, Row, Spread};
use crate::table::Table;
use crate::terminal::thousands;
use serde_json::{Value, json};

/// Tera-operations a second.
fn rate(operations: f64, ms: f64) -> f64 {
    operations / (ms * 1e9)
}

fn share(floor: Option<f64>, ms: f64) -> String {
    floor.map_or("-".to_owned(), |floor| format!("{:.0} %", 100.0 * floor / ms))
}

fn number(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.3}"),
        ms if ms < 1000.0 => format!("{ms:.2}"),
        ms => format!("{ms:.1}"),
    }
}

/// One line for each length.
pub(crate) fn table(rows: &[Row], limits: &Limits) -> String {
    let mut columns = vec!["N", "keys seen", "plan ms", "forward ms", "TFLOP/s", "of floor"];
    let with_backward = rows.iter().any(|row| row.backward.is_some());
    if with_backward {
        columns.extend(["backward ms", "TFLOP/s", "of floor"]);
    }
    let differ = |of: fn(&Row) -> &str| rows.iter().any(|row| of(row) != of(&rows[0]));
    let (scores, changes) = (differ(|row| &row.scores), differ(|row| &row.change));
    columns.extend(scores.then_some("<scores"));
    columns.extend(changes.then_some("<schedule"));
    let mut table = Table::new(&columns);
    for row in rows {
        let pass = |times: &Spread, operations: f64, bytes: f64| {
            let ms = times.median;
            let floor = limits.floor(operations, bytes);
            [number(ms), format!("{:.2}", rate(operations, ms)), share(floor, ms)]
        };
        let mut cells = vec![thousands(row.n), format!("{:.1}", row.seen)];
        cells.push(row.plan.map_or("-".to_owned(), |plan| number(plan.median)));
        cells.extend(pass(&row.forward, row.work.forward, row.bytes.0));
        match &row.backward {
            Some(backward) => cells.extend(pass(backward, row.work.backward, row.bytes.1)),
            None if with_backward => cells.extend(["-", "-", "-"].map(str::to_owned)),
            None => {}
        }
        cells.extend(scores.then(|| row.scores.clone()));
        cells.extend(changes.then(|| change(row)));
        table.row(cells);
    }
    table.render(2)
}

fn change(row: &Row) -> String {
    if row.change.is_empty() { "chosen".to_owned() } else { row.change.clone() }
}

/// Every launch of every row.
pub(crate) fn entries(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows.iter().filter(|row| !row.launches.is_empty()) {
        let mut table = Table::new(&["<module", "<entry", "ms"]);
        for (module, entry, ms) in &row.launches {
            table.row([module.clone(), entry.clone(), number(*ms)]);
        }
        let (n, scores) = (thousands(row.n), &row.scores);
        out.push_str(&format!("N {n}, {scores} scores, {}\n{}", row.schedule, table.render(2)));
    }
    out
}

fn spread(s: &Spread) -> Value {
    json!({ "median_ms": s.median, "least_ms": s.least, "most_ms": s.most })
}

/// The same and more, for programs.
pub(crate) fn rows(rows: &[Row], limits: &Limits) -> Value {
    let launch = |(module, entry, ms): &(String, String, f64)| json!({ "module": module, "entry": entry, "ms": ms });
    let one = |row: &Row| {
        let pass = |times: &Spread, operations: f64, bytes: f64| {
            let mut value = spread(times);
            value["tflops"] = json!(rate(operations, times.median));
            value["floor_ms"] = json!(limits.floor(operations, bytes));
            value
        };
        json!({
            "n": row.n,
            "scores": row.scores,
            "change": row.change,
            "schedule": row.schedule,
            "keys_seen": row.seen,
            "plan": row.plan.as_ref().map(spread),
            "forward": pass(&row.forward, row.work.forward, row.bytes.0),
            "backward": row.backward.as_ref().map(|b| pass(b, row.work.backward, row.bytes.1)),
            "entries": row.launches.iter().map(launch).collect::<Vec<_>>(),
        })
    };
    Value::Array(rows.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Work;

    #[test]
    fn a_row_in_both_forms() {
        let times = |median| Spread { median, least: median, most: median };
        let row = Row {
            n: 65_536,
            scores: "sd:1".to_owned(),
            change: String::new(),
            schedule: "chunk 512".to_owned(),
            seen: 1000.0,
            work: Work { forward: 1e12, backward: 2.5e12 },
            bytes: (1e9, 2e9),
            plan: Some(times(0.5)),
            forward: times(4.0),
            backward: Some(times(20.0)),
            launches: vec![("plan".to_owned(), "scan".to_owned(), 0.5)],
        };
        let limits = Limits { products: Some(500e12), copy: Some(4e12) };
        let text = table(std::slice::from_ref(&row), &limits);
        assert!(text.contains("65,536") && text.contains("250.00"), "{text}");
        // 2 ms of 4, and 5 ms of 20.
        assert!(text.contains("50 %") && text.contains("25 %"), "{text}");
        assert!(!text.contains("scores"), "{text}");
        let other = Row { scores: "trend:0.01:0.001".to_owned(), backward: None, ..row.clone() };
        let both = table(&[other.clone(), row.clone()], &limits);
        assert!(both.contains("trend:0.01:0.001") && both.contains("sd:1"), "{both}");
        assert!(!table(&[other], &limits).contains("backward"));
        assert!(entries(std::slice::from_ref(&row)).contains("scan"));
        let value = rows(&[row], &limits);
        assert_eq!(value[0]["forward"]["tflops"], json!(250.0));
        assert_eq!(value[0]["entries"][0]["entry"], json!("scan"));
    }
}
