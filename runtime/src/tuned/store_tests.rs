use super::*;
use crate::tuned::manifest::tests::record;
use crate::tuned::{Figures, How, Kept, Winner};
use sparsek_codegen::tune::{Axis, Measurement, Outcome, Spread};

/// An entry with one measurement of that many milliseconds and a winner of as many.
fn entry(k: usize, ms: f64, date: &str) -> Entry {
    let record = record(k, 512);
    let figures = record.figures.clone().unwrap();
    let spread = Spread { count: 5, median: ms, least: ms, most: ms };
    let measurement = Measurement {
        axis: Axis::Forward,
        schedule: record.schedule,
        predicted_ms: 2.0,
        outcome: Outcome::Measured(spread),
    };
    let kept = Kept {
        measurement,
        batch: 1,
        n: 65_536,
        kv_heads: 8,
        scores: "sd:1".to_owned(),
        driver: "13.0".to_owned(),
        date: date.to_owned(),
    };
    let figures = Figures { forward_ms: ms, date: date.to_owned(), ..figures };
    let winner = Winner { id: record.id(), schedule: record.schedule, how: How::Quick, figures };
    Entry { winner: Some(winner), measurements: vec![kept], ..Entry::new("Test", record.key) }
}

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(&folder.path().join("deep/tuned"));
    (folder, store)
}

#[test]
fn entries_are_merged() {
    let (_folder, store) = store();
    let first = entry(512, 2.0, "2026-11-24T00:00:00Z");
    assert!(store.get(&first.key).unwrap().is_none());
    assert!(store.list().unwrap().is_empty());
    store.merge(&first).unwrap();
    assert_eq!(store.get(&first.key).unwrap().as_ref(), Some(&first));
    // A slower winner of a later day does not take the place; its measurement is kept.
    let slower = entry(512, 3.0, "2026-11-25T00:00:00Z");
    let merged = store.merge(&slower).unwrap();
    assert!(merged.moved.is_none());
    assert_eq!(merged.entry.winner, first.winner);
    assert_eq!(merged.entry.measurements.len(), 2);
    let faster = entry(512, 1.0, "2026-11-23T00:00:00Z");
    assert_eq!(store.merge(&faster).unwrap().entry.winner, faster.winner);
    // The same again changes nothing.
    assert_eq!(store.merge(&faster).unwrap().entry.measurements.len(), 3);
    store.merge(&entry(256, 1.0, "2026-11-23T00:00:00Z")).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
    assert!(store.remove(&first.key).unwrap());
    assert!(!store.remove(&first.key).unwrap());
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn another_driver_asks_for_the_later_winner() {
    let (_folder, store) = store();
    store.merge(&entry(512, 2.0, "2026-11-24T00:00:00Z")).unwrap();
    let mut slower = entry(512, 3.0, "2026-11-25T00:00:00Z");
    slower.winner.as_mut().unwrap().figures.driver = "13.1".to_owned();
    assert_eq!(store.merge(&slower).unwrap().entry.winner, slower.winner);
}

/// The same found in another way.
fn found_by(how: How, entry: Entry) -> Entry {
    let winner = entry.winner.clone().map(|winner| Winner { how, ..winner });
    Entry { winner, ..entry }
}

#[test]
fn a_baseline_gives_way_to_what_a_search_found() {
    let early = |ms| entry(512, ms, "2026-11-24T00:00:00Z");
    let late = |ms| entry(512, ms, "2026-11-25T00:00:00Z");
    for how in [How::Quick, How::Full] {
        let (_folder, store) = store();
        // Faster, later and with another driver: still only a baseline.
        let found = found_by(how, early(2.0));
        store.merge(&found).unwrap();
        let mut baseline = found_by(How::Baseline, late(1.0));
        for driver in ["13.0", "13.1"] {
            baseline.winner.as_mut().unwrap().figures.driver = driver.to_owned();
            let merged = store.merge(&baseline).unwrap().entry;
            assert_eq!(merged.winner, found.winner);
            // What was measured is kept beside it.
            assert_eq!(merged.measurements.len(), 2);
        }
        assert!(store.remove(&found.key).unwrap());
        store.merge(&baseline).unwrap();
        assert_eq!(store.merge(&found).unwrap().entry.winner, found.winner);
    }
    // Of two baselines the later one, which need not be the faster one.
    let (_folder, store) = store();
    store.merge(&found_by(How::Baseline, early(1.0))).unwrap();
    let later = found_by(How::Baseline, late(2.0));
    assert_eq!(store.merge(&later).unwrap().entry.winner, later.winner);
}

#[test]
fn a_stored_baseline_does_not_hide_what_the_manifest_has() {
    use crate::tuned::{Manifest, Source, find};
    let (_folder, store) = store();
    let baseline = found_by(How::Baseline, entry(512, 2.0, "2026-11-24T00:00:00Z"));
    store.merge(&baseline).unwrap();
    let found = |manifest: &Manifest| {
        let found = find(&baseline.key, Some(&store), manifest, |_| Ok(()), |w| panic!("{w}"));
        found.map(|(record, source)| (record.how, source)).unwrap()
    };
    let carried = record(512, 1024);
    let manifest = Manifest::new([carried.clone()]);
    assert_eq!(found(&manifest), (How::Full, Source::Manifest(carried.id())));
    let of_both = (How::Baseline, Source::Baseline(record(512, 512).id()));
    assert_eq!(found(&Manifest::default()), of_both);
    let carried = crate::tuned::Record { how: How::Baseline, ..carried };
    assert_eq!(found(&Manifest::new([carried])), of_both);
    assert!(of_both.1.to_string().starts_with("the cost model's guess, measured"));
}

#[test]
fn broken_files_are_said_and_moved_aside_but_never_lost() {
    let (_folder, store) = store();
    let good = entry(512, 2.0, "2026-11-24T00:00:00Z");
    store.merge(&good).unwrap();
    let path = store.path(&good.key);
    let whole = fs::read_to_string(&path).unwrap();
    let newer = whole.replacen("\"version\": 1", "\"version\": 9", 1);
    let foreign = whole.replacen("\"d\": 128", "\"d\": 64", 1);
    let cut = &whole[..whole.len() / 2];
    let texts =
        [(cut, "damaged"), ("", "damaged"), (&newer, "version 9"), (&foreign, "another key")];
    for (n, (text, word)) in texts.into_iter().enumerate() {
        fs::write(&path, text).unwrap();
        let broken = store.get(&good.key).unwrap_err().to_string();
        assert!(broken.contains(word) && broken.contains("move the file away"), "{broken}");
        // Asking changes nothing.
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let merged = store.merge(&good).unwrap();
        let aside = merged.moved.unwrap();
        assert!(aside.to_string_lossy().ends_with(&format!("broken-{}", n + 1)), "{aside:?}");
        assert_eq!(fs::read_to_string(aside).unwrap(), text);
        assert_eq!(store.get(&good.key).unwrap().as_ref(), Some(&good));
    }
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn many_writers_of_one_key_lose_nothing() {
    let (_folder, store) = store();
    std::thread::scope(|scope| {
        for writer in 0..4u32 {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..8u32 {
                    let ms = 1.0 + f64::from(writer * 8 + n);
                    store.merge(&entry(512, ms, "2026-11-24T00:00:00Z")).unwrap();
                }
            });
        }
    });
    let kept = store.get(&record(512, 512).key).unwrap().unwrap();
    assert_eq!(kept.measurements.len(), 32);
    assert_eq!(kept.winner.unwrap().figures.forward_ms, 1.0);
}

#[test]
fn the_store_comes_before_the_manifest_and_both_must_fit() {
    let (_folder, store) = store();
    let manifest = crate::tuned::Manifest::new([record(512, 1024)]);
    let key = record(512, 512).key;
    let find = |store: Option<&Store>, refused: u32| {
        let fits = |s: &sparsek_codegen::Schedule| match s.chunk == refused {
            true => Err("it does not fit".to_owned()),
            false => Ok(()),
        };
        let mut warnings = Vec::new();
        let found = crate::tuned::find(&key, store, &manifest, fits, |w| warnings.push(w));
        (found.map(|(record, source)| (record.schedule.chunk, source)), warnings)
    };
    use crate::tuned::Source;
    let of_manifest = || Source::Manifest(record(512, 1024).id());
    assert_eq!(find(Some(&store), 0), (Some((1024, of_manifest())), Vec::new()));
    store.merge(&entry(512, 2.0, "2026-11-24T00:00:00Z")).unwrap();
    let of_store = || Source::Store(record(512, 512).id());
    assert_eq!(find(Some(&store), 0), (Some((512, of_store())), Vec::new()));
    assert_eq!(find(None, 0).0, Some((1024, of_manifest())));
    // A schedule outside the block, or too large for the GPU, is none: the next source is asked.
    let (found, warnings) = find(Some(&store), 512);
    assert_eq!(found, Some((1024, of_manifest())));
    assert!(warnings.iter().any(|w| w.contains("it does not fit")), "{warnings:?}");
    assert_eq!(find(None, 1024).0, None);
    // A file that cannot be read is said, and none too.
    fs::write(store.path(&key), "{").unwrap();
    let (found, warnings) = find(Some(&store), 0);
    assert_eq!(found, Some((1024, of_manifest())));
    assert!(warnings.iter().any(|w| w.contains("damaged")), "{warnings:?}");
}
