# shellcheck shell=bash
# Sourced by the other scripts: finds cargo, also where sudo hides it, and checks that it is new enough.
for rust_home in "${HOME:-/nowhere}" "$([ -z "${SUDO_USER:-}" ] || getent passwd "$SUDO_USER" | cut -d: -f6)"; do
  command -v cargo >/dev/null || [ ! -x "$rust_home/.cargo/bin/cargo" ] || PATH=$PATH:$rust_home/.cargo/bin
done
command -v cargo >/dev/null || {
  echo "cargo is not here; install Rust 1.85 or newer first (https://rustup.rs, or Debian 13's package cargo)" >&2
  exit 1
}
rust_version=$(cargo --version | grep -oE '[0-9]+\.[0-9]+' | head -n 1)
if [ "${rust_version%%.*}" -eq 1 ] && [ "${rust_version#*.}" -lt 85 ]; then
  echo "this Rust is $rust_version, and 1.85 or newer is needed; https://rustup.rs has it" >&2
  exit 1
fi
