# Stands in for the official python:3.13-slim where no registry gives it: the same line of Python, from Debian's
# packages, at the same paths, and told about packages and certificates what its host is told.
FROM scratch
ADD root.tar /
COPY system /
RUN update-ca-certificates \
    && rm /usr/lib/python3.13/EXTERNALLY-MANAGED \
    && ln -s /usr/bin/python3 /usr/local/bin/python \
    && ln -s /usr/bin/python3 /usr/local/bin/python3 \
    && ln -s /usr/bin/python3 /usr/local/bin/python3.13 \
    && ln -s /usr/bin/pip3 /usr/local/bin/pip \
    && ln -s /usr/bin/pip3 /usr/local/bin/pip3
COPY bundle.crt /etc/ssl/certs/ca-certificates.crt
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
CMD ["python3"]
