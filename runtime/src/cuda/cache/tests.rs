use super::*;
use std::thread;

fn entry(n: u8) -> Entry {
    Entry {
        label: format!("forward of Test {n}"),
        resources: vec![Resources { entry: "f".to_owned(), registers: 40, ..Resources::default() }],
        cubin: vec![n; 1000],
    }
}

fn names(cache: &Cache) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(cache.entries())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_parts_of_a_key_are_kept_apart() {
    assert_eq!(Key::new(&["ab", "c"]), Key::new(&["ab", "c"]));
    assert_ne!(Key::new(&["ab", "c"]), Key::new(&["a", "bc"]));
    assert_ne!(Key::new(&["a"]), Key::new(&["a", ""]));
}

#[test]
fn what_was_put_is_got() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let (one, two) = (Key::new(&["1"]), Key::new(&["2"]));
    assert_eq!(cache.get(&one), None);
    assert_eq!(cache.list().unwrap(), []);
    cache.put(&one, &entry(1)).unwrap();
    cache.put(&one, &entry(3)).unwrap();
    assert_eq!(cache.get(&one), Some(entry(3)));
    assert_eq!(cache.get(&two), None);
    assert_eq!(names(&cache), [format!("{one}.entry")]);
    let listed = cache.list().unwrap();
    assert_eq!(listed[0].state, State::Good { label: "forward of Test 3".to_owned() });
    let cleared = cache.clear().unwrap();
    assert_eq!((cleared.files, cleared.bytes), (1, listed[0].bytes));
    assert_eq!(cache.get(&one), None);
}

/// Whatever stands where an entry should be is a miss, is listed with a reason, and is replaced.
#[test]
fn bad_files_are_misses_and_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let (key, other) = (Key::new(&["1"]), Key::new(&["2"]));
    cache.put(&key, &entry(1)).unwrap();
    cache.put(&other, &entry(2)).unwrap();
    let good = fs::read(cache.path(&key)).unwrap();
    let mut corrupt = good.clone();
    corrupt[good.len() / 2] ^= 1;
    let mut stale = good.clone();
    stale[8] = 200;
    let cases: [(&str, Vec<u8>); 7] = [
        ("corrupt", corrupt),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("only its magic", good[..8].to_vec()),
        ("empty", Vec::new()),
        ("foreign", b"\x7fELF and so on, of somebody else".to_vec()),
        ("stale", stale),
        ("another entry's contents", fs::read(cache.path(&other)).unwrap()),
    ];
    for (what, bytes) in cases {
        fs::write(cache.path(&key), bytes).unwrap();
        assert_eq!(cache.get(&key), None, "{what}");
        let listed = cache.list().unwrap();
        let file = listed.iter().find(|l| l.path == cache.path(&key)).unwrap();
        assert!(matches!(file.state, State::Bad { .. }), "{what}: {file:?}");
        cache.put(&key, &entry(1)).unwrap();
        assert_eq!(cache.get(&key), Some(entry(1)), "{what}");
    }
    assert_eq!(cache.get(&other), Some(entry(2)));
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let key = Key::new(&["1"]);
    cache.put(&key, &entry(1)).unwrap();
    let full = cache.put_with(&key, &entry(2), |file, bytes| {
        file.write_all(&bytes[..100])?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(cache.get(&key), Some(entry(1)), "the old entry stays");
    assert_eq!(names(&cache).len(), 1);
}

/// A folder in which nothing can be made: an error of `put` alone. (A folder without write
/// permission does not stop root, so a file stands where the folder should be.)
#[test]
fn a_folder_that_cannot_be_written_is_an_error_of_put_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let cache = Cache::new(&file);
    let key = Key::new(&["1"]);
    assert!(cache.put(&key, &entry(1)).is_err());
    assert_eq!(cache.get(&key), None);
}

#[test]
fn other_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    cache.put(&Key::new(&["1"]), &entry(1)).unwrap();
    fs::write(cache.entries().join("notes.txt"), "mine").unwrap();
    fs::write(cache.entries().join("left.1.2.tmp"), "interrupted").unwrap();
    assert_eq!(cache.list().unwrap().len(), 2);
    assert_eq!(cache.clear().unwrap().files, 2);
    assert_eq!(names(&cache), ["notes.txt"]);
}

/// Writers and readers of one key at the same time: a reader sees a whole entry or none.
#[test]
fn many_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let key = Key::new(&["1"]);
    thread::scope(|scope| {
        for n in 0..4u8 {
            let cache = &cache;
            scope.spawn(move || (0..20).for_each(|_| cache.put(&key, &entry(n)).unwrap()));
            scope.spawn(move || {
                for _ in 0..100 {
                    if let Some(found) = cache.get(&key) {
                        assert!((0..4).any(|n| found == entry(n)));
                    }
                }
            });
        }
    });
    assert_eq!(names(&cache), [format!("{key}.entry")]);
}
