# Stands in for docker.io/library/rust:1-bookworm: the same paths, where this machine's own toolchain gets mounted.
ARG BASE
FROM $BASE
ARG TOOLCHAIN
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN mkdir -p "$CARGO_HOME/bin" "$CARGO_HOME/registry" "$RUSTUP_HOME/toolchains/$TOOLCHAIN" \
 && printf 'version = "12"\nprofile = "minimal"\ndefault_toolchain = "%s"\n' "$TOOLCHAIN" > "$RUSTUP_HOME/settings.toml" \
 && ln -s rustup "$CARGO_HOME/bin/cargo" && ln -s rustup "$CARGO_HOME/bin/rustc"
