//! Ports: the manual's where they are free, the next free ones where they are not.

use super::layout::Ports;
use crate::limits;
use anyhow::bail;
use std::net::{IpAddr, TcpListener};

/// The manual's ports, with the API's as configured.
pub fn wanted(api: u16) -> Ports {
    Ports {
        api,
        masters: [5432, 5433],
        redis: 6379,
    }
}

/// Takes each wanted port, or the next free one, and says so through `say`.
///
/// # Errors
/// When none of [`limits::PORTS_TRIED`] ports is free.
pub fn choose(wanted: Ports, bind: IpAddr, say: &mut dyn FnMut(&str)) -> anyhow::Result<Ports> {
    let [first, second] = wanted.masters;
    // A port that another of the four wants is not a free one.
    let mut spoken_for = vec![wanted.api, first, second, wanted.redis];
    let mut take = |name: &str, port: u16, address: IpAddr| {
        let free = |port: &u16| TcpListener::bind((address, *port)).is_ok();
        if free(&port) {
            return Ok(port);
        }
        let next = (port.saturating_add(1)..=port.saturating_add(limits::PORTS_TRIED))
            .find(|port| !spoken_for.contains(port) && free(port));
        let Some(next) = next else {
            bail!(
                "port {port} of {name} is taken, and so are the {} after it",
                limits::PORTS_TRIED
            );
        };
        say(&format!("port {port} is taken, so {name} uses {next}"));
        spoken_for.push(next);
        Ok(next)
    };
    let loopback = IpAddr::from([127, 0, 0, 1]);
    Ok(Ports {
        masters: [
            take("master1", first, loopback)?,
            take("master2", second, loopback)?,
        ],
        redis: take("redis", wanted.redis, loopback)?,
        api: take("the API", wanted.api, bind)?,
    })
}

/// Four ports that are free right now, for a cluster that nobody needs to find by itself.
///
/// # Errors
/// Those of the sockets.
pub fn any() -> anyhow::Result<Ports> {
    // Held together, so that they are four different ones.
    let sockets: Vec<TcpListener> = (0..4)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)))
        .collect::<Result<_, _>>()?;
    let ports: Vec<u16> = sockets
        .iter()
        .map(|socket| Ok(socket.local_addr()?.port()))
        .collect::<std::io::Result<_>>()?;
    Ok(Ports {
        api: ports[0],
        masters: [ports[1], ports[2]],
        redis: ports[3],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_yields_the_next_free_one_and_a_line() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = taken.local_addr().expect("its address").port();
        let free = any().expect("free ports");
        let mut said = Vec::new();
        let wanted = Ports {
            redis: port,
            ..free
        };
        let chosen = choose(wanted, [127, 0, 0, 1].into(), &mut |line| {
            said.push(line.to_string())
        });
        let chosen = chosen.expect("ports");
        assert_eq!((chosen.api, chosen.masters), (free.api, free.masters));
        assert!(chosen.redis > port && !free.masters.contains(&chosen.redis));
        assert_eq!(
            said,
            [format!(
                "port {port} is taken, so redis uses {}",
                chosen.redis
            )]
        );
    }
}
