# An image with litefs, to run as it is or to copy litefs from:
#
#   docker build -t litefs .
#   docker run --device /dev/fuse --cap-add SYS_ADMIN \
#     -v litefs:/var/lib/litefs -v ./litefs.yml:/etc/litefs.yml litefs
#
# Where AppArmor is on (Ubuntu), add --security-opt apparmor:unconfined.

FROM node:24-slim AS build
WORKDIR /build
COPY package.json package-lock.json tsconfig.json tsconfig.build.json ./
# Without scripts: prepare would build, which is the next step or needs what is left out.
RUN npm ci --ignore-scripts
COPY src src
RUN npm run build

FROM node:24-slim
# litefs mounts with the mount program; fuse3 has the configuration that allow-other needs.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates fuse3 mount \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/litefs
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts && npm cache clean --force
COPY --from=build /build/dist dist
COPY bin bin
COPY litefs.yml.example ./
RUN ln -s /opt/litefs/bin/litefs /usr/local/bin/litefs
WORKDIR /
VOLUME /var/lib/litefs
EXPOSE 20202
ENTRYPOINT ["litefs", "mount"]
