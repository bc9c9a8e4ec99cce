# Stands in for the official caddy:2.11.4 where no registry gives it: the Caddy of .local/ with what it is linked
# to, and a busybox, since the official image has one. As there, the binary holds the capability to bind low
# ports; so a container that drops all capabilities and does not add NET_BIND_SERVICE cannot start it.
FROM scratch
ADD root.tar /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data CADDY_VERSION=v2.11.4
RUN mkdir -p /config/caddy /data/caddy /srv /tmp /usr/share/caddy && chmod 1777 /tmp && caddy version
EXPOSE 80 443 443/udp 2019
WORKDIR /srv
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
