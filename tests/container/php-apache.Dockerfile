# Stands in for docker.io/library/php:8.2-apache: Debian's Apache and PHP, set up as that image sets them up.
ARG BASE
FROM $BASE
ENV APACHE_CONFDIR=/etc/apache2 APACHE_ENVVARS=/etc/apache2/envvars
RUN sed -ri 's/^export ([^=]+)=(.*)$/: ${\1:=\2}\nexport \1/' "$APACHE_ENVVARS" \
 && . "$APACHE_ENVVARS" \
 && mkdir -p "$APACHE_RUN_DIR" "$APACHE_LOCK_DIR" && chmod 1777 "$APACHE_RUN_DIR" "$APACHE_LOCK_DIR" "$APACHE_LOG_DIR" \
 && ln -sfT /dev/stderr "$APACHE_LOG_DIR/error.log" \
 && ln -sfT /dev/stdout "$APACHE_LOG_DIR/access.log" \
 && ln -sfT /dev/stdout "$APACHE_LOG_DIR/other_vhosts_access.log" \
 && rm -f /var/www/html/index.html \
 && a2dismod -q -f mpm_event && a2enmod -q mpm_prefork
COPY --chmod=755 docker-php-entrypoint apache2-foreground /usr/local/bin/
WORKDIR /var/www/html
STOPSIGNAL SIGWINCH
EXPOSE 80
ENTRYPOINT ["docker-php-entrypoint"]
CMD ["apache2-foreground"]
