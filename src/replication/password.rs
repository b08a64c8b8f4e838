//! The password of the role `replicator`: the configured one, unless that is the one in the manual and the masters have another already. The
//! default must not come back because somebody repeats a command without REPLICATION_PASSWORD.

use super::conninfo::{ROLE, link_role};
use super::plan::literal;
use super::reach::Reach;
use crate::cluster::NodeId;
use crate::config::{Config, MANUALS_PASSWORDS, Secret};
use crate::limits;
use crate::pg;
use anyhow::bail;
use postgres::error::SqlState;

/// The configuration with the password that is to be used.
///
/// # Errors
/// When the role has a password that is nowhere to be found, or a master cannot be asked.
pub(super) fn settled(reach: &Reach, config: &Config) -> anyhow::Result<Config> {
    let mut config = config.clone();
    if config.replication_password.reveal() != MANUALS_PASSWORDS.1 {
        return Ok(config);
    }
    for node in NodeId::BOTH {
        let known = reach.run(node, "look at its subscription", move |session| {
            let row = session.client().query_opt(
                "SELECT subconninfo FROM pg_catalog.pg_subscription WHERE subname = $1 AND subdbid = \
                 (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
                &[&node.subscription()],
            )?;
            row.map(|row| row.try_get::<_, String>(0)).transpose()
        })?;
        if let Some(password) = known.as_deref().and_then(password_in) {
            config.replication_password = Secret::new(password);
            return Ok(config);
        }
    }
    for node in NodeId::BOTH {
        if exists(reach, node, ROLE)? && !may_log_in(&config, node, ROLE)? {
            bail!(
                "REPLICATION_PASSWORD: must be set, because role {ROLE} on {node} has another password than the manual's, \
                 and no subscription says which"
            );
        }
    }
    Ok(config)
}

/// What somebody should know of the password.
pub(super) fn warning(config: &Config) -> Option<String> {
    let here = |host: &str| host == "localhost" || host == "::1" || host.starts_with("127.");
    let all_here = config.peer_addresses.iter().all(|peer| here(&peer.host));
    let known = config.replication_password.reveal() == MANUALS_PASSWORDS.1;
    (known && !config.replication_password_set && !all_here).then(|| {
        format!(
            "WARNING: role {ROLE} has the manual's password, which everybody knows and with which every table can be read; \
             set REPLICATION_PASSWORD and run this again"
        )
    })
}

/// Makes the roles, or gives them what they lack: the manual's, and the one of this cluster, its member.
pub(super) fn make_roles(
    reach: &Reach,
    config: &Config,
    node: NodeId,
    done: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut did = make_role(reach, config, node, ROLE, "")?;
    let link = link_role(config);
    if link != ROLE {
        let of_members = format!(" IN ROLE {ROLE}");
        // What was done for the one was done for the other; one line says it.
        did = did.or(make_role(reach, config, node, &link, &of_members)?);
    }
    done.extend(did);
    Ok(())
}

fn make_role(
    reach: &Reach,
    config: &Config,
    node: NodeId,
    role: &str,
    when_new: &str,
) -> anyhow::Result<Option<String>> {
    let exists = exists(reach, node, role)?;
    if exists && is_able(reach, node, role)? && may_log_in(config, node, role)? {
        return Ok(None);
    }
    let (verb, with) = match exists {
        true => ("ALTER", ""),
        false => ("CREATE", when_new),
    };
    let password = literal(config.replication_password.reveal());
    let statement = format!(
        "{verb} ROLE {role} WITH LOGIN REPLICATION VALID UNTIL 'infinity' PASSWORD {password}{with}"
    );
    reach.run(node, "make the role", move |session| {
        session.client().batch_execute(&statement)
    })?;
    let did = if exists { "got its password" } else { "made" };
    Ok(Some(format!("{node}: role {role} {did}")))
}

fn exists(reach: &Reach, node: NodeId, role: &str) -> anyhow::Result<bool> {
    let role = role.to_string();
    reach.run(node, "look for the role", move |session| {
        let sql = "SELECT FROM pg_catalog.pg_roles WHERE rolname = $1";
        Ok(!session.client().query(sql, &[&role])?.is_empty())
    })
}

/// Whether nothing but its password could keep the role from replicating.
fn is_able(reach: &Reach, node: NodeId, role: &str) -> anyhow::Result<bool> {
    let role = role.to_string();
    reach.run(node, "look at the role", move |session| {
        let row = session.client().query_opt(
            "SELECT FROM pg_catalog.pg_roles WHERE rolname = $1 AND rolreplication AND rolcanlogin \
             AND coalesce(rolvaliduntil > pg_catalog.now(), true)",
            &[&role],
        )?;
        Ok(row.is_some())
    })
}

/// Whether the role can log in with the configured password.
fn may_log_in(config: &Config, node: NodeId, role: &str) -> anyhow::Result<bool> {
    let settings = pg::connection_settings(config.master(node), limits::SETUP_CALL)?
        .for_role(role, config.replication_password.reveal());
    // The pool hides why a login was refused, so this is a connection of its own; on a thread of its
    // own, because connecting to a frozen server never ends.
    let (reply, answer) = crossbeam_channel::bounded(1);
    std::thread::Builder::new()
        .name(format!("login-{node}"))
        .spawn(move || {
            let _ = reply.send(settings.connect().map(drop));
        })?;
    match answer.recv_timeout(limits::SETUP_CALL) {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) if error.code() == Some(&SqlState::INVALID_PASSWORD) => Ok(false),
        Ok(Err(error)) => bail!("log in on {node} as {role}: {error}"),
        Err(_) => bail!(
            "log in on {node} as {role}: no answer within {} s",
            limits::SETUP_CALL.as_secs()
        ),
    }
}

/// The password in a connection string of libpq, of the form `name = value` with or without quotes.
fn password_in(connection: &str) -> Option<String> {
    let mut rest = connection.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (value, after) = value_of(after.trim_start())?;
        if name.trim() == "password" {
            return Some(value);
        }
        rest = after.trim_start();
    }
    None
}

/// A value, and what comes after it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => value.push(letters.next()?.1),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            letter if !quoted && letter.is_whitespace() => return Some((value, &text[at..])),
            letter => value.push(letter),
        }
    }
    (!quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Values;

    #[test]
    fn the_password_of_a_subscription_is_found_however_it_is_quoted() {
        let found = |text| password_in(text);
        assert_eq!(
            found(r"host='a b' password='it\'s \\ x' dbname='x'").as_deref(),
            Some(r"it's \ x")
        );
        assert_eq!(found(r"host=a password = p\ w\'").as_deref(), Some(r"p w'"));
        assert_eq!(found("password=x host=a").as_deref(), Some("x"));
        assert_eq!(found("host='password=no' user=x"), None);
        for none in [
            "",
            "host",
            "password='open",
            "postgresql://replicator:x@a/b",
        ] {
            assert_eq!(found(none), None, "{none}");
        }
    }

    #[test]
    fn the_manuals_password_on_masters_elsewhere_is_a_warning() {
        let of = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (*name, value.to_string()));
            warning(&Config::check(&pairs.collect::<Values>()).expect("valid"))
        };
        assert_eq!(of(&[]), None);
        let elsewhere = ("MASTER2_PEER_ADDRESS", "db2.example:5432");
        assert!(of(&[elsewhere]).is_some_and(|text| text.contains("REPLICATION_PASSWORD")));
        assert_eq!(of(&[elsewhere, ("REPLICATION_PASSWORD", "own")]), None);
        assert_eq!(
            of(&[elsewhere, ("REPLICATION_PASSWORD", "repl_pass")]),
            None
        );
    }
}
