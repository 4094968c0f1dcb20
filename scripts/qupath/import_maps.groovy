/*
 * Imports the outlines that batch inference has written (scripts/infer.py, or inference.json of a bundle): of the open slide, or,
 * with Run > Run for project, of every slide of a project. QuPath 0.5 and later.
 *
 * The outlines are in QuPath's own coordinates, unless they were written with slide_mapper::outputs::annotation_frame level0.
 *
 * Every name of QuPath that it uses was looked up in the sources of QuPath 0.5, 0.6 and 0.7; it has not been run in QuPath.
 */
import static qupath.lib.scripting.QP.*

// ---- Settings
def MAPS = "/path/to/maps"  // the folder with <slide>.geojson
def REPLACE = true          // remove what an earlier import has left
// ----

def image = getCurrentServer()
if (image == null) {
    println "Open a slide first, or choose Run for project."
    return
}
def file = new File(image.getURIs().iterator().next().getPath()).getName()
def dot = file.lastIndexOf(".")
def slide = dot > 0 ? file.substring(0, dot) : file
// <slide>.ome.tif is called <slide> in the results.
if (slide.toLowerCase().endsWith(".ome"))
    slide = slide.substring(0, slide.length() - 4)

def outlines = new File(MAPS, slide + ".geojson")
if (!outlines.isFile()) {
    println slide + ": there is no " + outlines
    return
}
def name = "imported map"
if (REPLACE)
    removeObjects(getAnnotationObjects().findAll { it.getName() == name }, true)
def before = new HashSet(getAnnotationObjects())
importObjectsFromFile(outlines.getPath())
def found = getAnnotationObjects().findAll { !before.contains(it) }
found.each { it.setName(name) }
fireHierarchyUpdate()
println slide + ": " + found.size() + " outlines"
