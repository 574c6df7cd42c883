//! What every catalogue must do: run for each of them by [`catalog_contract`].

use crate::base::id::RecordingId;
use crate::catalog::manifest::{HookRecord, HookState, Manifest, RecordingState};
use crate::catalog::{Catalog, Change, RecordingError, What, names};
use jiff::Timestamp;
use std::cell::Cell;
use std::sync::Arc;
use tokio::sync::broadcast::error::TryRecvError;

/// Opens a catalogue; once more, as the next start does.
pub type Open<'a> = &'a dyn Fn() -> Arc<dyn Catalog>;

/// Tests of the catalogues that a closure of type [`Open`] opens, which `$fresh` makes: of an empty one each.
macro_rules! catalog_contract {
    ($fresh:expr) => {
        $crate::catalog::contract::catalog_contract! { $fresh,
            what_is_inserted_is_there_also_after_a_restart
            an_id_is_inserted_once
            recordings_are_listed_newest_first_and_in_pages
            a_page_of_ten_asks_about_ten_however_many_recordings_there_are
            of_two_changes_of_one_revision_one_is_done
            changes_that_come_together_are_all_done
            a_change_that_is_refused_changes_nothing
            a_change_is_told_once_it_is_durable
            what_is_removed_is_gone_also_after_a_restart
            what_is_deleted_says_so_also_after_a_restart
            sealed_recordings_whose_hook_has_not_come_to_its_end_are_due_after_a_restart
            a_recording_is_found_by_the_name_of_its_file_once_it_is_sealed
        }
    };
    ($fresh:expr, $($promise:ident)+) => {
        $(
            #[tokio::test]
            async fn $promise() {
                $crate::catalog::contract::$promise(&$fresh).await;
            }
        )+
    };
}
pub(super) use catalog_contract;

/// A recording that began so many milliseconds after 1970.
pub fn manifest(millis: i64, state: RecordingState) -> Manifest {
    let started_at = Timestamp::from_millisecond(millis).unwrap();
    let id = RecordingId::new(started_at);
    let stream = "s".parse().unwrap();
    let file = format!("{}.webm", names::stem(&stream, started_at, &id));
    Manifest {
        id,
        stream,
        file,
        mime: "video/webm".to_owned(),
        state,
        started_at,
        ended_at: None,
        bytes: 0,
        duration_ms: 0,
        file_present: true,
        continues: None,
        tracks: Vec::new(),
        gaps: Vec::new(),
        end_reason: None,
        reason: None,
        error: None,
        hook: HookRecord::new(HookState::Queued),
    }
}

/// With as many recordings of this state, oldest first.
async fn filled(open: Open<'_>, count: i64, state: RecordingState) -> (Arc<dyn Catalog>, Vec<Manifest>) {
    let (catalog, all) = (open(), (1..=count).map(|n| manifest(n * 1000, state)).collect::<Vec<_>>());
    for one in &all {
        catalog.insert(one.clone()).await.unwrap();
    }
    (catalog, all)
}

fn all(catalog: &dyn Catalog) -> Vec<Manifest> {
    catalog.page(None, usize::MAX, &|_| true)
}

fn more(manifest: &mut Manifest) -> Result<(), RecordingError> {
    manifest.bytes += 1;
    Ok(())
}

pub async fn what_is_inserted_is_there_also_after_a_restart(open: Open<'_>) {
    let (catalog, inserted) = filled(open, 2, RecordingState::Recording).await;
    for catalog in [catalog, open()] {
        for one in &inserted {
            assert_eq!(catalog.get(&one.id).unwrap().manifest, *one);
        }
        assert!(catalog.get(&RecordingId::new(Timestamp::now())).is_none());
    }
}

pub async fn an_id_is_inserted_once(open: Open<'_>) {
    let (catalog, inserted) = filled(open, 1, RecordingState::Recording).await;
    let other = Manifest { bytes: 1, ..inserted[0].clone() };
    assert!(matches!(catalog.insert(other).await, Err(RecordingError::Busy(_))));
    assert_eq!(all(&*catalog), inserted);
}

pub async fn recordings_are_listed_newest_first_and_in_pages(open: Open<'_>) {
    let (catalog, mut inserted) = filled(open, 5, RecordingState::Sealed).await;
    inserted.reverse();
    assert_eq!(all(&*catalog), inserted);
    let newest = catalog.page(None, 2, &|_| true);
    assert_eq!(newest, inserted[..2]);
    assert_eq!(catalog.page(Some(&newest[1].id), 2, &|_| true), inserted[2..4]);
    let odd = |manifest: &Manifest| manifest.started_at.as_second() % 2 == 1;
    assert_eq!(catalog.page(Some(&inserted[0].id), 2, &odd), [inserted[2].clone(), inserted[4].clone()]);
}

pub async fn a_page_of_ten_asks_about_ten_however_many_recordings_there_are(open: Open<'_>) {
    let (catalog, _) = filled(open, 100, RecordingState::Sealed).await;
    let asked = Cell::new(0);
    let wanted = |_: &Manifest| {
        asked.set(asked.get() + 1);
        true
    };
    assert_eq!((catalog.page(None, 10, &wanted).len(), asked.get()), (10, 10));
}

pub async fn of_two_changes_of_one_revision_one_is_done(open: Open<'_>) {
    let (catalog, inserted) = filled(open, 1, RecordingState::Recording).await;
    let seen = catalog.get(&inserted[0].id).unwrap();
    let changed = |bytes| Manifest { bytes, ..seen.manifest.clone() };
    let (one, two) = (catalog.put(changed(1), seen.revision), catalog.put(changed(2), seen.revision));
    let (one, two) = futures_util::future::join(one, two).await;
    let done = [one.unwrap(), two.unwrap()];
    assert_eq!(done.iter().flatten().count(), 1, "{done:?}");
    let now = catalog.get(&inserted[0].id).unwrap();
    assert_eq!(now.manifest.bytes, if done[0].is_some() { 1 } else { 2 });
    assert!(done.contains(&Some(now.revision)) && now.revision > seen.revision, "{now:?}");
    assert!(catalog.put(changed(3), now.revision).await.unwrap().is_some());
    let unknown = manifest(5_000, RecordingState::Recording);
    let refused = catalog.put(unknown, now.revision).await;
    assert!(matches!(refused, Err(RecordingError::NotFound(_))), "{refused:?}");
}

pub async fn changes_that_come_together_are_all_done(open: Open<'_>) {
    let (catalog, inserted) = filled(open, 1, RecordingState::Sealed).await;
    let bump = || {
        let (catalog, id) = (catalog.clone(), inserted[0].id.clone());
        tokio::spawn(async move { catalog.update(&id, more).await.unwrap().bytes })
    };
    let mut seen = Vec::new();
    for task in (0..20).map(|_| bump()).collect::<Vec<_>>() {
        seen.push(task.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    assert_eq!(open().get(&inserted[0].id).unwrap().manifest.bytes, 20, "a change was lost");
}

pub async fn a_change_that_is_refused_changes_nothing(open: Open<'_>) {
    let (catalog, inserted) = filled(open, 1, RecordingState::Sealed).await;
    let refuse = |manifest: &mut Manifest| {
        manifest.bytes += 1;
        Err(RecordingError::Busy(manifest.id.clone()))
    };
    let refused = catalog.update(&inserted[0].id, refuse).await;
    assert!(matches!(refused, Err(RecordingError::Busy(_))), "{refused:?}");
    assert_eq!(all(&*catalog), inserted);
}

pub async fn a_change_is_told_once_it_is_durable(open: Open<'_>) {
    let catalog = open();
    let mut changes = catalog.changes();
    let mut next = async |catalog: &dyn Catalog| {
        let Change { what, manifest } = changes.recv().await.unwrap();
        let (now, after) = (catalog.get(&manifest.id), open().get(&manifest.id));
        if let Some(now) = now {
            assert_eq!((&now.manifest, &after.unwrap().manifest), (&manifest, &manifest), "{what:?}");
        } else {
            assert!(after.is_none(), "{what:?}");
        }
        assert!(matches!(changes.try_recv(), Err(TryRecvError::Empty)));
        what
    };
    let (one, two) = (manifest(1_000, RecordingState::Recording), manifest(2_000, RecordingState::Recording));
    catalog.insert(one.clone()).await.unwrap();
    assert_eq!(next(&*catalog).await, What::Started);
    let seal = |manifest: &mut Manifest| {
        manifest.state = RecordingState::Sealed;
        Ok(())
    };
    // What nothing shows is no change.
    catalog.update(&one.id, more).await.unwrap();
    catalog.update(&one.id, seal).await.unwrap();
    assert_eq!(next(&*catalog).await, What::Sealed);
    let run = |manifest: &mut Manifest| {
        manifest.hook.state = HookState::Done;
        Ok(())
    };
    catalog.update(&one.id, run).await.unwrap();
    assert_eq!(next(&*catalog).await, What::Hook);
    catalog.delete(&one.id, |_| true).await.unwrap();
    assert_eq!(next(&*catalog).await, What::Deleted);
    catalog.insert(two.clone()).await.unwrap();
    next(&*catalog).await;
    catalog.remove(&two.id).await.unwrap();
    assert_eq!(next(&*catalog).await, What::Deleted);
}

pub async fn what_is_removed_is_gone_also_after_a_restart(open: Open<'_>) {
    let (catalog, inserted) = filled(open, 2, RecordingState::Recording).await;
    catalog.remove(&inserted[0].id).await.unwrap();
    catalog.remove(&inserted[0].id).await.unwrap();
    let gone = catalog.update(&inserted[0].id, more).await;
    assert!(matches!(gone, Err(RecordingError::NotFound(_))), "{gone:?}");
    for catalog in [catalog, open()] {
        assert_eq!(all(&*catalog), inserted[1..]);
    }
}

pub async fn what_is_deleted_says_so_also_after_a_restart(open: Open<'_>) {
    let (catalog, inserted) = filled(open, 2, RecordingState::Sealed).await;
    let refused = catalog.delete(&inserted[0].id, |_| false).await;
    assert!(matches!(refused, Err(RecordingError::Busy(_))), "{refused:?}");
    let deleted = catalog.delete(&inserted[0].id, |_| true).await.unwrap();
    assert_eq!((deleted.state, deleted.file_present), (RecordingState::Deleted, false));
    for catalog in [catalog, open()] {
        assert_eq!(catalog.get(&deleted.id).unwrap().manifest, deleted);
    }
    let (catalog, under_way) = (open(), manifest(9_000, RecordingState::Recording));
    catalog.insert(under_way.clone()).await.unwrap();
    let refused = catalog.delete(&under_way.id, |_| true).await;
    assert!(matches!(refused, Err(RecordingError::Busy(_))), "{refused:?}");
}

pub async fn sealed_recordings_whose_hook_has_not_come_to_its_end_are_due_after_a_restart(open: Open<'_>) {
    let catalog = open();
    let table = [
        (RecordingState::Sealed, HookState::Queued, true),
        (RecordingState::Sealed, HookState::Running, true),
        (RecordingState::Sealed, HookState::Done, false),
        (RecordingState::Sealed, HookState::Failed, false),
        (RecordingState::Sealed, HookState::None, false),
        (RecordingState::Recording, HookState::Queued, false),
        (RecordingState::Deleted, HookState::Queued, false),
    ];
    let mut due = Vec::new();
    for ((state, hook, is_due), n) in table.into_iter().zip(1..) {
        let one = Manifest { hook: HookRecord::new(hook), ..manifest(n * 1000, state) };
        catalog.insert(one.clone()).await.unwrap();
        due.extend(is_due.then_some(one));
    }
    for catalog in [catalog, open()] {
        assert_eq!(catalog.hooks_due(), due, "oldest first");
    }
}

pub async fn a_recording_is_found_by_the_name_of_its_file_once_it_is_sealed(open: Open<'_>) {
    let (catalog, sealed) = filled(open, 2, RecordingState::Sealed).await;
    let under_way = manifest(9_000, RecordingState::Recording);
    catalog.insert(under_way.clone()).await.unwrap();
    // A copy's name has its original's id; a file that was put into the folder has none.
    let copy =
        Manifest { file: format!("copy of {}", sealed[0].file), ..manifest(3_000, RecordingState::Sealed) };
    let deleted = Manifest { file: "foreign.webm".to_owned(), ..manifest(4_000, RecordingState::Deleted) };
    let again = Manifest { file: "foreign.webm".to_owned(), ..manifest(5_000, RecordingState::Sealed) };
    for one in [&copy, &deleted] {
        catalog.insert(one.clone()).await.unwrap();
    }
    assert_eq!(catalog.by_file("foreign.webm"), Some(deleted));
    catalog.insert(again.clone()).await.unwrap();
    for one in sealed.iter().chain([&copy, &again]) {
        assert_eq!(catalog.by_file(&one.file).as_ref(), Some(one));
    }
    let (name, part) = (&sealed[0].file, format!("{}.part", sealed[0].file));
    let others = [&under_way.file, &part, &format!("./{name}"), &format!("x{name}"), &String::new()];
    for other in others {
        assert_eq!(catalog.by_file(other), None, "{other:?}");
    }
    let deleted = catalog.delete(&sealed[0].id, |_| true).await.unwrap();
    assert_eq!(catalog.by_file(name), Some(deleted), "a deleted one is known to have been there");
}
