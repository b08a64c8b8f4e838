//! The backups of a local cluster: pgBackRest's configuration for each master, made from the project's own, and the passphrase.

use super::layout::Layout;
use crate::backup::command::{Place, is_installed};
use crate::cluster::NodeId;
use crate::config::Secret;
use crate::output::say_with_time as say;
use crate::programs::Owner;
use crate::server::archive::Archive;
use crate::server::{Master, has_room_for_sockets};
use anyhow::{Context, bail};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// pgBackRest's configuration for each master, as the project has it.
const TEMPLATES: [&str; 2] = [
    include_str!("../../pgbackrest/master1/pgbackrest.conf"),
    include_str!("../../pgbackrest/master2/pgbackrest.conf"),
];

/// Why there can be no backups in this folder, if there can be none. A local cluster runs all the same.
pub fn is_impossible(layout: &Layout) -> Option<String> {
    if !is_installed() {
        return Some("pgBackRest is not installed; scripts/install.sh installs it".to_string());
    }
    let run = layout.run();
    (!has_room_for_sockets(&run)).then(|| {
        format!(
            "the path {} is too long for a socket, by which pgBackRest reaches a master; name a shorter folder \
             with --data",
            run.display()
        )
    })
}

/// The archive of a local master.
pub fn of(layout: &Layout, node: NodeId, owner: Owner) -> Archive {
    let possible = is_impossible(layout).is_none();
    let place = possible.then(|| Place::at(&layout.pgbackrest(), owner));
    Archive::new(node, place)
}

/// Writes pgBackRest's configuration of a master that is about to start: the project's, with the paths and the port of this cluster.
/// Whatever is wrong is told and is no error, as in [`Archive::prepare`].
pub fn configure(layout: &Layout, master: &Master, port: u16) {
    if is_impossible(layout).is_some() {
        return;
    }
    if let Err(error) = write_configuration(layout, master, port) {
        let node = master.node;
        say(&format!(
            "ALARM: {node}: {error:#}; no WAL is archived until then"
        ));
    }
}

fn write_configuration(layout: &Layout, master: &Master, port: u16) -> anyhow::Result<()> {
    let (all, node, owner) = (layout.pgbackrest(), master.node, master.owner);
    let folder = all.join(node.name());
    for folder in [&all, &folder, &folder.join("conf.d"), &layout.backups()] {
        owner.make_folder(folder)?;
    }
    let path = |path: &Path| path.display().to_string();
    let ours = [
        ("repo1-path", path(&layout.backups().join(node.name()))),
        ("spool-path", path(&folder.join("spool"))),
        ("lock-path", path(&folder.join("lock"))),
        ("log-path", path(&folder.join("log"))),
        ("pg1-path", path(&master.data)),
        ("pg1-port", port.to_string()),
        ("pg1-socket-path", path(&master.run)),
    ];
    let text = with_values(TEMPLATES[node.index()], &ours);
    let text = format!("# Written at each start by `imdb-ha local up`.\n{text}");
    owner.write_private(&folder.join("pgbackrest.conf"), &text)?;
    let passphrase = kept_passphrase(&all).with_context(|| {
        let file = passphrase_file(&all);
        format!("the passphrase of the backups, {}, is gone", file.display())
    })?;
    let text = format!("[global]\n{PASSPHRASE}={passphrase}\n");
    owner.write_private(&folder.join("conf.d/passphrase.conf"), &text)
}

/// The option of pgBackRest that holds the passphrase.
const PASSPHRASE: &str = "repo1-cipher-pass";

fn passphrase_file(all: &Path) -> PathBuf {
    all.join("passphrase")
}

/// The passphrase from its file or, should that be gone, from the configuration of either master, which has it too.
fn kept_passphrase(all: &Path) -> Option<String> {
    let of_file = fs::read_to_string(passphrase_file(all)).ok();
    let of_file = of_file.map(|text| text.trim().to_string());
    let of_node = |node: NodeId| {
        let path = all.join(node.name()).join("conf.d/passphrase.conf");
        let text = fs::read_to_string(path).ok()?;
        let mut values = text.lines().filter_map(|line| line.split_once('='));
        let found = values.find(|(key, _)| key.trim() == PASSPHRASE);
        found.map(|(_, value)| value.trim().to_string())
    };
    let found = of_file.filter(|text| !text.is_empty());
    found.or_else(|| NodeId::BOTH.into_iter().find_map(of_node))
}

/// Whether a repository holds anything already.
fn is_used(layout: &Layout, node: NodeId) -> bool {
    let archive = layout.backups().join(node.name()).join("archive");
    let stanza = archive.join(crate::backup::stanza(node));
    stanza.join("archive.info").exists()
}

/// Sees that there is a passphrase: the one that was given, or one that is drawn now. It is kept, since without it no backup can
/// be read, and it cannot be changed for a repository that is there.
///
/// # Errors
/// When another one was given than the repositories were made with, or when theirs is gone.
pub fn keep_passphrase(
    layout: &Layout,
    owner: Owner,
    given: Option<&Secret>,
) -> anyhow::Result<()> {
    if let Some(why) = is_impossible(layout) {
        say(&format!("no WAL is archived and no backup made: {why}"));
        return Ok(());
    }
    let all = layout.pgbackrest();
    owner.make_folder(&all)?;
    let file = passphrase_file(&all);
    let kept = kept_passphrase(&all);
    let used = NodeId::BOTH.into_iter().find(|node| is_used(layout, *node));
    match (kept.as_deref(), given) {
        (Some(kept), Some(given)) if kept != given.reveal() => bail!(
            "BACKUP_PASSPHRASE: the backups in {} were made with another one, which {} holds; it cannot be changed",
            layout.backups().display(),
            file.display()
        ),
        (Some(_), _) if file.exists() => Ok(()),
        (Some(kept), _) => owner.write_private(&file, kept),
        (None, Some(given)) => owner.write_private(&file, given.reveal()),
        // A new one would make all that there is unreadable, and every WAL segment fail from here on.
        (None, None) if used.is_some() => bail!(
            "the passphrase of the backups in {} is gone: put {} back, give it as BACKUP_PASSPHRASE, or move the \
             backups away",
            layout.backups().display(),
            file.display()
        ),
        (None, None) => {
            let mut random = [0_u8; 32];
            File::open("/dev/urandom")
                .and_then(|mut source| source.read_exact(&mut random))
                .context("draw a passphrase for the backups")?;
            let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            owner.write_private(&file, &text)?;
            say(&format!(
                "backups: encrypted with a passphrase drawn now; keep a copy of {} elsewhere",
                file.display()
            ));
            Ok(())
        }
    }
}

/// The lines of a configuration with other values for some keys.
fn with_values(template: &str, values: &[(&str, String)]) -> String {
    let lines = template.lines().map(|line| {
        let key = line.split_once('=').map(|(key, _)| key);
        match values.iter().find(|(name, _)| Some(*name) == key) {
            Some((name, value)) => format!("{name}={value}\n"),
            None => format!("{line}\n"),
        }
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_cluster_changes_every_path_of_the_project_s_configuration() {
        let names = [
            "repo1-path",
            "spool-path",
            "lock-path",
            "log-path",
            "pg1-path",
            "pg1-port",
            "pg1-socket-path",
        ];
        let values = names.map(|name| (name, "/here".to_string()));
        for template in TEMPLATES {
            let text = with_values(template, &values);
            assert_eq!(text.matches("=/here\n").count(), names.len());
            assert!(!text.contains("/var/"), "{text}");
            assert_eq!(text.lines().count(), template.lines().count());
        }
    }

    #[test]
    fn a_passphrase_that_is_gone_is_found_in_the_configuration_and_never_drawn_anew() {
        let root = std::env::temp_dir().join(format!("imdb-ha-passphrase-{}", std::process::id()));
        let layout = Layout {
            root: root.clone(),
            named: true,
        };
        let all = layout.pgbackrest();
        let owner = Owner::find().expect("an owner");
        for folder in [
            all.join("master2/conf.d"),
            layout.backups().join("master1/archive/imdb-master1"),
        ] {
            fs::create_dir_all(folder).expect("a folder");
        }
        keep_passphrase(&layout, owner, None).expect("one is drawn");
        let drawn = fs::read_to_string(passphrase_file(&all)).expect("it is kept");
        assert_eq!(drawn.len(), 64);
        let of_node = all.join("master2/conf.d/passphrase.conf");
        fs::write(&of_node, format!("[global]\n{PASSPHRASE}={drawn}\n")).expect("a file");
        fs::remove_file(passphrase_file(&all)).expect("remove it");
        keep_passphrase(&layout, owner, None).expect("it is found");
        assert_eq!(kept_passphrase(&all), Some(drawn));
        // Gone altogether, and there is something that was made with it.
        fs::remove_file(passphrase_file(&all)).expect("remove it");
        fs::remove_file(of_node).expect("remove it");
        let made = layout
            .backups()
            .join("master1/archive/imdb-master1/archive.info");
        fs::write(made, "").expect("a file");
        let refused = keep_passphrase(&layout, owner, None).expect_err("it is gone");
        assert!(refused.to_string().contains("put "), "{refused:#}");
        assert_eq!(kept_passphrase(&all), None);
        fs::remove_dir_all(root).expect("remove it");
    }

    #[test]
    fn both_masters_are_configured_alike() {
        let [first, second] = TEMPLATES;
        assert_eq!(first.replace("master1", "master2"), second);
    }
}
