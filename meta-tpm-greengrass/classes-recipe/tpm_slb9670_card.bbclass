# MACHINE_FEATURES tpm-slb9670: the device tree overlays on the card's FAT partition, where the
# firmware looks for them. Every image inherits it (conf/layer.conf).

IMAGE_BOOT_FILES:append = " tpm-slb9670/*;overlays/"
do_image_wic[depends] += "tpm-slb9670-overlays:do_deploy"
