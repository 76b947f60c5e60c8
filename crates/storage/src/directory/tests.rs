use std::fs;

use nsquorum_environment::{Environment, ManualClock, WallTime};

use super::*;

fn options(path: &Path) -> StoreOptions {
    let environment = Environment::manual(ManualClock::new(WallTime::default()).into(), 7);
    StoreOptions::new(path, environment)
}

#[test]
fn a_node_that_founds_with_others_keeps_what_they_found() {
    let parent = tempfile::tempdir().unwrap();
    let together = StoreOptions {
        founding: Founding::Together,
        ..options(parent.path())
    };
    let alone = DataDirectory::open(&options(&parent.path().join("alone"))).unwrap();
    assert_eq!(alone.identity().node.get(), 1);
    assert!(alone.identity().cluster.is_some());

    let path = parent.path().join("together");
    let together = StoreOptions {
        directory: path.clone(),
        ..together
    };
    let first = NodeDirectory::open(&together).unwrap().identity().clone();
    assert_eq!(first.cluster, None);
    let mut directory = NodeDirectory::open(&together).unwrap();
    assert_eq!(
        directory.identity().node,
        first.node,
        "the number stays while the cluster is looked for"
    );
    let members = vec![Member {
        node: first.node.get(),
        address: "10.0.0.1:4170".into(),
    }];
    let cluster = ClusterId::new([3; 16]);
    directory.found(cluster, members.clone()).unwrap();
    drop(directory);
    let found = Identity::read(&path).unwrap();
    assert_eq!((found.cluster, found.members), (Some(cluster), members));
    assert_eq!((found.node, found.incarnation.get()), (first.node, 2));

    let text = fs::read_to_string(path.join(IDENTITY_FILE)).unwrap();
    fs::write(path.join(IDENTITY_FILE), text.replace("10.0.0.1", "10.0.0.2")).unwrap();
    assert!(
        matches!(Identity::read(&path), Err(StorageError::Corrupt { .. })),
        "the checksum covers the members"
    );
}

#[test]
fn a_new_directory_gets_an_identity_and_each_start_raises_the_incarnation() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("deep").join("data");
    let first = DataDirectory::open(&options(&path)).unwrap().identity().clone();
    assert_eq!((first.node.get(), first.incarnation.get()), (1, 1));
    let other = StoreOptions {
        founding: Founding::Together,
        ..options(&path)
    };
    let second = DataDirectory::open(&other).unwrap().identity().clone();
    assert_eq!(
        second,
        Identity {
            incarnation: second.incarnation,
            ..first
        }
    );
    assert_eq!(second.incarnation.get(), 2);
}

#[test]
fn a_directory_in_use_is_refused_with_its_holder() {
    let parent = tempfile::tempdir().unwrap();
    let held = DataDirectory::open(&options(parent.path())).unwrap();
    let error = DataDirectory::open(&options(parent.path())).unwrap_err();
    let StorageError::InUse { holder, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(&**holder, format!("process {}", std::process::id()));
    assert!(error.is_retryable());
    drop(held);
    DataDirectory::open(&options(parent.path())).unwrap();
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    for (name, word) in [
        ("thesis.tex", "thesis.tex"),
        ("nsqd.dat", "stock nsqd"),
        ("t.diskqueue.meta.dat", "stock nsqd"),
    ] {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join(name), "x").unwrap();
        let error = DataDirectory::open(&options(parent.path())).unwrap_err();
        assert!(
            matches!(error, StorageError::Foreign { .. }) && error.to_string().contains(word),
            "{error}"
        );
        assert_eq!(
            fs::read_dir(parent.path()).unwrap().count(),
            1,
            "something was written into it"
        );
    }
}

#[test]
fn where_neighbours_are_allowed_they_are_left_alone_and_data_are_still_refused() {
    let with_neighbours = |path: &std::path::Path| StoreOptions {
        neighbours: Neighbours::Allowed,
        ..options(path)
    };
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("thesis.tex"), "x").unwrap();
    drop(DataDirectory::open(&with_neighbours(parent.path())).unwrap());
    let again = DataDirectory::open(&options(parent.path())).unwrap();
    assert_eq!(
        again.identity().incarnation.get(),
        2,
        "who has an identity is known, whatever lies beside it"
    );
    assert_eq!(fs::read(parent.path().join("thesis.tex")).unwrap(), b"x");
    for (name, word) in [
        ("nsqd.dat", "stock nsqd"),
        ("t:c.diskqueue.000000.dat", "stock nsqd"),
        ("db", "db"),
    ] {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("thesis.tex"), "x").unwrap();
        fs::write(parent.path().join(name), "x").unwrap();
        let error = DataDirectory::open(&with_neighbours(parent.path())).unwrap_err();
        assert!(
            matches!(error, StorageError::Foreign { .. }) && error.to_string().contains(word),
            "{error}"
        );
        assert_eq!(
            fs::read_dir(parent.path()).unwrap().count(),
            2,
            "something was written into it"
        );
    }
}

#[test]
fn a_start_that_died_before_the_identity_was_written_can_be_repeated() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join(LOCK_FILE), "1\n").unwrap();
    fs::write(parent.path().join("nsquorum.json.tmp"), "{").unwrap();
    assert_eq!(
        DataDirectory::open(&options(parent.path()))
            .unwrap()
            .identity()
            .incarnation
            .get(),
        1
    );
}

#[test]
fn every_changed_byte_of_the_identity_is_found_or_harmless() {
    let parent = tempfile::tempdir().unwrap();
    let identity = DataDirectory::open(&options(parent.path())).unwrap().identity().clone();
    let path = parent.path().join(IDENTITY_FILE);
    let good = fs::read(&path).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bad).unwrap();
        match Identity::read(parent.path()) {
            Ok(found) => assert_eq!(found, identity, "bit {bit}"),
            Err(error) => assert_eq!(error.class(), crate::ErrorClass::Data, "bit {bit}: {error}"),
        }
    }
}

#[test]
fn the_ballast_is_made_once_and_given_up() {
    let parent = tempfile::tempdir().unwrap();
    make_ballast(parent.path(), 1 << 16).unwrap();
    make_ballast(parent.path(), 1 << 20).unwrap();
    let path = parent.path().join(BALLAST_FILE);
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 16);
    free_ballast(parent.path()).unwrap();
    free_ballast(parent.path()).unwrap();
    assert!(!path.exists());
}

#[test]
fn a_start_without_space_gives_up_the_ballast() {
    let parent = tempfile::tempdir().unwrap();
    drop(DataDirectory::open(&options(parent.path())).unwrap());
    make_ballast(parent.path(), 1 << 16).unwrap();
    drop(
        DataDirectory::open(&StoreOptions {
            refuse_all_below_bytes: 0,
            ..options(parent.path())
        })
        .unwrap(),
    );
    assert!(parent.path().join(BALLAST_FILE).exists());
    drop(
        DataDirectory::open(&StoreOptions {
            refuse_all_below_bytes: u64::MAX,
            ..options(parent.path())
        })
        .unwrap(),
    );
    assert!(!parent.path().join(BALLAST_FILE).exists());
}
