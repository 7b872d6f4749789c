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
    let mut table = Table::new(&[
        "N",
        "keys seen",
        "plan ms",
        "forward ms",
        "TFLOP/s",
        "of floor",
        "backward ms",
        "TFLOP/s",
        "of floor",
    ]);
    for row in rows {
        let (forward, backward) = (row.forward.median, row.backward.median);
        table.row([
            thousands(row.n),
            format!("{:.1}", row.seen),
            row.plan.map_or("-".to_owned(), |plan| number(plan.median)),
            number(forward),
            format!("{:.2}", rate(row.work.forward, forward)),
            share(limits.floor(row.work.forward, row.bytes.0), forward),
            number(backward),
            format!("{:.2}", rate(row.work.backward, backward)),
            share(limits.floor(row.work.backward, row.bytes.1), backward),
        ]);
    }
    table.render(2)
}

/// Every launch of the longest sequence.
pub(crate) fn launches(rows: &[Row]) -> String {
    let Some(row) = rows.last().filter(|row| !row.launches.is_empty()) else {
        return String::new();
    };
    let mut table = Table::new(&["<module", "<entry", "ms"]);
    for (module, entry, ms) in &row.launches {
        table.row([module.clone(), entry.clone(), number(*ms)]);
    }
    format!("launches at N = {}, one by one:\n{}", thousands(row.n), table.render(2))
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
            "keys_seen": row.seen,
            "plan": row.plan.as_ref().map(spread),
            "forward": pass(&row.forward, row.work.forward, row.bytes.0),
            "backward": pass(&row.backward, row.work.backward, row.bytes.1),
            "launches": row.launches.iter().map(launch).collect::<Vec<_>>(),
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
            seen: 1000.0,
            work: Work { forward: 1e12, backward: 2.5e12 },
            bytes: (1e9, 2e9),
            plan: Some(times(0.5)),
            forward: times(4.0),
            backward: times(20.0),
            launches: vec![("plan".to_owned(), "scan".to_owned(), 0.5)],
        };
        let limits = Limits { products: Some(500e12), copy: Some(4e12) };
        let text = table(std::slice::from_ref(&row), &limits);
        assert!(text.contains("65,536") && text.contains("250.00"), "{text}");
        // 2 ms of 4, and 5 ms of 20.
        assert!(text.contains("50 %") && text.contains("25 %"), "{text}");
        let value = rows(&[row], &limits);
        assert_eq!(value[0]["forward"]["tflops"], json!(250.0));
        assert_eq!(value[0]["launches"][0]["entry"], json!("scan"));
    }
}
