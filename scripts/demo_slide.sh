#!/usr/bin/env bash
# Maps one slide of real tissue by a head that comes with the project, without any training: the last part of demo.sh.
#
#   bash scripts/demo_slide.sh                        a small slide of OpenSlide's test data (CC0, 1.9 MB), downloaded once;
#                                                     if it cannot be had, nothing is mapped and nothing fails
#   DEMO_SLIDE=slide.svs bash scripts/demo_slide.sh   a slide of your own, of colorectal tissue
set -euo pipefail
if [ -n "${DEMO_SLIDE:-}" ]; then
    [ -e "$DEMO_SLIDE" ] || { echo "error: DEMO_SLIDE=$DEMO_SLIDE does not exist: give the path of a slide" >&2; exit 1; }
    DEMO_SLIDE=$(realpath -- "$DEMO_SLIDE")
fi
cd "$(dirname "$0")/.."
# Of demo.sh, which has made the environment.
PYTHON=${DEMO_PYTHON:-}
if [ -z "$PYTHON" ]; then
    source scripts/environment.sh
    prepare_environment requirements.txt
fi
bundle=bundles/alpha_beta_mil
head=$bundle/models/ebhi_mosaics
maps=maps/demo_slide
# Published by OpenSlide, https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio
url=https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs
sha256=ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7

slide=${DEMO_SLIDE:-data/demo_slide/CMU-1-Small-Region.svs}
if [ -z "${DEMO_SLIDE:-}" ] && ! "$PYTHON" scripts/fetch.py "$url" "$slide" "$sha256"; then
    echo "No slide of real tissue is mapped. To map one of yours: DEMO_SLIDE=slide.svs bash scripts/demo_slide.sh"
    exit 0
fi
"$PYTHON" -m monai.bundle run --config_file "['$bundle/configs/inference.json','$head/inference.json']" \
    --source "$slide" --output_dir "$maps"

cat <<END

The map of $slide is in $PWD/$maps.
What it can mean: $head was trained on colorectal tissue with 16 slide labels, and gives an answer for any other tissue too.
END
if [ -z "${DEMO_SLIDE:-}" ]; then
    cat <<END
This slide is not of colorectal tissue (it looks like skin; OpenSlide does not name the organ). Its map shows that a real slide
is read, mapped and written. What it marks as tumour, about half of the tissue, means nothing.
END
else
    cat <<END
On a colorectal slide it shows where the head suspects tumour; on any other organ it means nothing.
END
fi
echo "Scores and limits: $head/README.md. Research only; not a medical device, not for diagnosis."
