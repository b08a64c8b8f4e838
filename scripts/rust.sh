# shellcheck shell=bash
# Sourced by the scripts that build: finds cargo and sees that it is new enough.

# Cargo lives in its user's home, which PATH lacks in a shell that was not opened by a login, and under sudo.
if ! command -v cargo >/dev/null; then
  for home in "$HOME" "$([ -z "${SUDO_USER:-}" ] || getent passwd "$SUDO_USER" | cut -d : -f 6)"; do
    [ -x "${home:-/nowhere}/.cargo/bin/cargo" ] || continue
    PATH=$home/.cargo/bin:$PATH
    # Rustup would look for the compiler in the home of whoever calls it. What cargo downloads still goes there,
    # so that root leaves nothing of its own in another's home.
    [ "$home" = "$HOME" ] || export RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup}
    export PATH
    break
  done
fi

rust_lacks() { # what is there
  echo "$(basename "$0" .sh): this needs Rust 1.85 or newer and $1; install it with https://rustup.rs or, on Debian 13, as package cargo" >&2
  exit 1
}

command -v cargo >/dev/null || rust_lacks "there is no cargo"
cargo_version=$(cargo --version 2>/dev/null | awk '{print $2}') || true
[[ $cargo_version =~ ^([0-9]+)\.([0-9]+) ]] || rust_lacks "$(command -v cargo) does not run"
[ $((BASH_REMATCH[1] * 1000 + BASH_REMATCH[2])) -ge 1085 ] || rust_lacks "$(command -v cargo) is $cargo_version"
unset -v cargo_version home
