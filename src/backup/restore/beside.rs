//! Everything of a restore that can fail, done beside the running masters: the files, the recovery, the checks, and what makes the result
//! fit to serve alone. Until its last line nothing has been changed that anybody uses.

use super::Servers;
use super::marker::{self, Marker};
use super::plan::Plan;
use super::wal;
use crate::backup::command::{NEVER, Place};
use crate::backup::entry::human;
use crate::backup::scratch::Scratch;
use crate::backup::tablespaces::{self, INSTEAD};
use crate::cluster::NodeId;
use crate::cluster::identity::Record;
use crate::config::Config;
use crate::limits;
use crate::output::say;
use crate::pg;
use crate::replication::{identity, rejoin};
use anyhow::{Context, bail};
use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Settings of a server that was restored, which belong to the recovery and to the master that it was.
const NOT_ITS_OWN: &[&str] = &[
    "archive_mode",
    "autovacuum",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
    "synchronous_standby_names",
    "wal_keep_size",
];

/// What it is given instead while nobody uses it. The WAL that it writes itself belongs into the archive later on, so none of it may be cleared
/// away, and nobody but this program should write any.
const FOR_NOW: &str = "autovacuum = off\nwal_keep_size = '256MB'\n";

/// Where a restored data folder waits for its exchange, and where it is made.
pub fn folders(data: &Path) -> (PathBuf, PathBuf) {
    let named = |suffix: &str| {
        let mut name = data.file_name().unwrap_or_default().to_os_string();
        name.push(suffix);
        data.with_file_name(name)
    };
    (named(".restored"), named(".restoring"))
}

/// What is known of what was restored.
pub struct Found {
    /// The last transaction in it.
    pub last: Option<String>,
    /// Rows of each table of schema public.
    pub rows: Vec<(String, i64)>,
    /// The tablespaces that it has.
    tablespaces: Vec<u32>,
    /// The segment that it writes to.
    segment: String,
    /// Whether it was being rebuilt from the other master, and so does not hold everything.
    unfinished: bool,
}

/// Restores beside the running masters, and returns where the finished data folder is. On an error nothing has been changed.
///
/// # Errors
/// What could not be done; what was made until then is removed.
pub fn prepare(
    place: &Place,
    config: &Config,
    servers: &dyn Servers,
    plan: &Plan,
    marker: Marker,
) -> anyhow::Result<(PathBuf, Marker)> {
    let node = plan.goal.node;
    let data = servers.data(node)?;
    let (restored, folder) = folders(&data);
    let mut scratch = Scratch::new(place, config, node, &folder)?;
    // Asked while the masters still run: what is restored belongs to the cluster of now, whatever it was then.
    let present = config.roster.ask_all(config);
    let made = make(place, servers, plan, present.as_ref(), marker, &mut scratch);
    let made = made.and_then(|marker| {
        fs::rename(&scratch.data, &restored)
            .with_context(|| format!("rename the folder to {}", restored.display()))?;
        Ok((restored, marker))
    });
    let ended = scratch.stop().and_then(|()| match &made {
        Ok(_) => Ok(()),
        Err(_) => tablespaces::remove_mapped(place, &folder, &data),
    });
    let ended = ended.and_then(|()| scratch.remove());
    let made =
        made.with_context(|| format!("restore {} beside {node}; nothing was changed", plan.label))?;
    ended?;
    Ok(made)
}

fn make(
    place: &Place,
    servers: &dyn Servers,
    plan: &Plan,
    present: Option<&Record>,
    mut marker: Marker,
    scratch: &mut Scratch,
) -> anyhow::Result<Marker> {
    let node = plan.goal.node;
    check_room(place, &scratch.data, plan)?;
    tablespaces::make(place, scratch.folder(), &plan.tablespaces)?;
    let places = plan.tablespaces.iter().map(|(_, to)| to.clone());
    scratch.tablespaces = places.collect();
    say(&format!(
        "{node}: restoring {} ({}) beside it",
        plan.label,
        human(plan.size)
    ));
    let mut arguments = plan.arguments();
    arguments.push(format!("--pg1-path={}", scratch.data.display()));
    arguments.extend(["--no-delta", "--archive-mode=off", "restore"].map(str::to_string));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    place.run(
        node,
        "restore a backup of",
        &arguments,
        limits::BACKUP_RUN,
        NEVER,
    )?;
    let old = servers.data(node)?;
    wal::lend(place, node, &old, &scratch.data)?;
    let settings = scratch.data.join("postgresql.auto.conf");
    let mut file = fs::OpenOptions::new().append(true).open(&settings)?;
    file.write_all(FOR_NOW.as_bytes())
        .with_context(|| format!("write {}", settings.display()))?;
    drop(file);
    say(&format!("{node}: recovering to {}", plan.state()));
    let recovered = scratch.start(place, limits::RESTORE_RECOVER, NEVER);
    if let Err(error) = recovered {
        let Some(stopped) = tablespaces::stopped_at(&scratch.said()) else {
            return Err(explain(error, plan));
        };
        tablespaces::undo(place, &stopped, &old);
        return Err(error.context(format!("{stopped} after {}: {INSTEAD}", plan.label)));
    }
    let found = look(scratch)?;
    tablespaces::forget_dropped(place, &scratch.data, &found.tablespaces, &old)?;
    if found.unfinished {
        bail!(
            "{node} was being rebuilt from {peer} at that moment and did not hold everything; choose another moment, \
             or restore {peer}",
            peer = node.peer()
        );
    }
    for (table, rows) in &found.rows {
        say(&format!("{node}: {rows} rows in {table}"));
    }
    make_fit(scratch, node, present)?;
    scratch.stop()?;
    // Whatever durability its server ran with.
    let folder = scratch.data.display().to_string();
    let sync = ["--sync-only", "-D", folder.as_str()];
    scratch.run(place, "initdb", &sync, limits::RESTORE_SYNC, NEVER)?;
    wal::promise(place, &scratch.data, &found.segment)?;
    marker.last = found.last;
    marker.rows = found.rows.into_iter().collect();
    marker::write(place, &scratch.data, &marker)?;
    Ok(marker)
}

/// A full disk would take the running master along, and each tablespace may be on another one.
fn check_room(place: &Place, folder: &Path, plan: &Plan) -> anyhow::Result<()> {
    let mut parts = vec![(folder, plan.size)];
    if !plan.tablespaces.is_empty() {
        let (data, of) = tablespaces::sizes(place, plan.goal.node, &plan.label)?;
        parts = vec![(folder, data)];
        for (tablespace, to) in &plan.tablespaces {
            let size = of.get(&tablespace.oid).copied().unwrap_or(0);
            parts.push((to.parent().unwrap_or(to), size));
        }
    }
    let mut needed: BTreeMap<u64, (&Path, u64)> = BTreeMap::new();
    for (folder, size) in parts {
        let disk = fs::metadata(folder)
            .with_context(|| format!("see on which disk {} is", folder.display()))?;
        needed.entry(disk.dev()).or_insert((folder, 0)).1 += size;
    }
    for (folder, size) in needed.into_values() {
        let disk = statvfs(folder)
            .with_context(|| format!("see how much room {} has", folder.display()))?;
        let room = disk.blocks_available().saturating_mul(disk.fragment_size());
        let needed = size + size / 5 + limits::RESTORE_ROOM_BYTES;
        if room < needed {
            bail!(
                "{} has room for {}, and this needs {}",
                folder.display(),
                human(room),
                human(needed)
            );
        }
    }
    Ok(())
}

/// PostgreSQL's words for a moment that it did not get to, with what to do about it.
fn explain(error: anyhow::Error, plan: &Plan) -> anyhow::Error {
    let said = format!("{error:#}");
    let node = plan.goal.node;
    let why = if said.contains("before configured recovery target was reached") {
        format!(
            "the WAL that there is of {node} ends before that moment, or has a hole before it; without --to \
             everything up to there is restored"
        )
    } else if said.contains("before consistent recovery point") {
        "the moment is before the end of that backup; name an older one with --set, or a later moment".to_string()
    } else {
        "recover what was restored".to_string()
    };
    error.context(why)
}

/// Looks at what was recovered.
fn look(scratch: &Scratch) -> anyhow::Result<Found> {
    let found = scratch.with_session(limits::RESTORE_LOOK, |session| {
        let client = session.client();
        let unfinished = rejoin::bears_mark(client)?;
        let row = client.query_one(
            "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), \
             pg_catalog.to_char(pg_catalog.pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', \
             'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
            &[],
        )?;
        let tables = client.query(
            "SELECT pg_catalog.format('%I.%I', schemaname, tablename) FROM pg_catalog.pg_tables \
             WHERE schemaname = 'public' ORDER BY 1",
            &[],
        )?;
        let sql = "SELECT oid FROM pg_catalog.pg_tablespace";
        let tablespaces = client.query(sql, &[])?;
        let mut rows = Vec::new();
        for table in tables {
            let name: String = table.try_get(0)?;
            let count = client.query_one(&format!("SELECT count(*) FROM {name}"), &[])?;
            rows.push((name, count.try_get(0)?));
        }
        Ok(Found {
            unfinished,
            tablespaces: tablespaces
                .iter()
                .map(|row| row.try_get(0))
                .collect::<Result<_, _>>()?,
            segment: row.try_get(0)?,
            last: row.try_get(1)?,
            rows,
        })
    });
    found.context("look at what was restored")
}

/// Takes away what belongs to the recovery, to the peer and to the master that it was.
fn make_fit(scratch: &Scratch, node: NodeId, present: Option<&Record>) -> anyhow::Result<()> {
    let present = present.cloned();
    let made = scratch.with_session(limits::RESTORE_LOOK, move |session| {
        let client = session.client();
        client.batch_execute(include_str!("../../../sql/restored_alone.sql"))?;
        // Each by itself: ALTER SYSTEM refuses to be one of several.
        for name in NOT_ITS_OWN {
            client.batch_execute(&format!("ALTER SYSTEM RESET {name}"))?;
        }
        // By its new record the API knows that it was put there on purpose, and is no older copy that somebody has left.
        let said = pg::identity::ask(client)?;
        let set_up = "SELECT pg_catalog.to_regprocedure('imdb_ha.este_nodo()') IS NOT NULL";
        let (set_up, known) = (
            client.query_one(set_up, &[])?.try_get(0)?,
            present.or(said.record),
        );
        let (true, Some(mut record)) = (set_up, known) else {
            return Ok(());
        };
        let now = Timestamp::now().as_millisecond().max(0) as u64;
        record.written = now.max(record.written + 1);
        record.systems[node.index()] = said.system;
        client.batch_execute(&identity::statement(&record.of(node)))
    });
    made.context("make what was restored fit to serve alone")
}
